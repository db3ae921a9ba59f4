#include "batch_manager/kv_cache.h"

#include <chrono>
#include <numeric>
#include <thread>
#include <utility>

#include "check.h"

using namespace inflight;
using namespace std::chrono_literals;

namespace {

// tokens_per_block is 4 in all of these tests.
KvCacheOptions reusing(int32_t num_blocks, int32_t num_host_blocks = 0) {
  return {.num_blocks = num_blocks, .num_host_blocks = num_host_blocks, .tokens_per_block = 4, .enable_reuse = true};
}

KvCacheOptions windowed(int32_t num_blocks, int32_t attention_window, int32_t sink_tokens = 0) {
  KvCacheOptions options = reusing(num_blocks);
  options.attention_window = attention_window;
  options.sink_tokens = sink_tokens;
  return options;
}

std::vector<int32_t> numbers(int32_t begin, int32_t count) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), begin);
  return tokens;
}

std::vector<int32_t> concat_tokens(std::vector<int32_t> first, const std::vector<int32_t>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// A sequence whose tokens are computed as soon as it is admitted.
struct Run {
  std::vector<int32_t> tokens;
  std::vector<uint64_t> extra_ids = {};
  uint64_t lora_task_id = 0;
  BlockList list = {};

  PrefixKey key() const { return {tokens, lora_task_id, extra_ids}; }

  std::optional<Admission> try_start(KvCache& cache, int32_t num_blocks = 0) {
    const auto admission = cache.admit(list, key(), num_blocks, true);
    if (admission) {
      CHECK(cache.extend(list, tokens.size()));
      cache.commit(list, key());
    }
    return admission;
  }
  Admission start(KvCache& cache) {
    const auto admission = try_start(cache);
    CHECK(admission.has_value());
    return *admission;
  }
  void append(KvCache& cache, const std::vector<int32_t>& more) {
    for (int32_t token : more) {
      tokens.push_back(token);
      CHECK(cache.extend(list, tokens.size()));
      cache.commit(list, key());
    }
  }
  void end(KvCache& cache, const KvCacheRetention& retention = {}, int32_t prompt_length = -1) {
    cache.release(list, key(), prompt_length < 0 ? static_cast<int32_t>(tokens.size()) : prompt_length, retention);
  }
};

KvCacheRetention retain(std::vector<RetentionRange> ranges) {
  KvCacheRetention retention;
  retention.ranges = std::move(ranges);
  return retention;
}

void run_to_end(KvCache& cache, const std::vector<int32_t>& tokens, const KvCacheRetention& retention = {}) {
  Run run{tokens};
  run.start(cache);
  run.end(cache, retention);
}

// How many tokens a sequence with this prefix and one more token would find.
int32_t num_cached(KvCache& cache, const std::vector<int32_t>& prefix) {
  Run probe{concat_tokens(prefix, {-7})};
  const auto admission = cache.admit(probe.list, probe.key(), 0, true);
  cache.release(probe.list);
  cache.take_copies();
  return admission ? admission->num_cached : -1;
}

void check_copies(KvCache& cache, const std::vector<std::pair<int32_t, int32_t>>& expected) {
  const auto copies = cache.take_copies();
  CHECK_EQ(copies.size(), expected.size());
  for (size_t i = 0; i < copies.size(); ++i) {
    CHECK_EQ(copies[i].source, expected[i].first);
    CHECK_EQ(copies[i].destination, expected[i].second);
  }
}

}  // namespace

// Reuse

TEST(a_sequence_finds_the_full_blocks_of_an_ended_one) {
  KvCache cache(reusing(8));
  Run first{numbers(0, 8)};
  CHECK_EQ(first.start(cache).num_cached, 0);
  const auto blocks = first.list.block_ids;
  first.end(cache);
  CHECK_EQ(cache.free_blocks(), 8);
  CHECK_EQ(cache.statistics().cached_blocks, 2);

  Run second{concat_tokens(numbers(0, 8), {90, 91})};
  const auto admission = cache.admit(second.list, second.key(), 0, true);
  CHECK_EQ(admission->num_cached, 8);
  CHECK(!admission->copies_from_host);
  CHECK(second.list.block_ids == blocks);
  CHECK_EQ(second.list.num_reused, 2);
  check_copies(cache, {});
}

TEST(a_sequence_shares_the_full_blocks_of_one_that_still_runs) {
  KvCache cache(reusing(8));
  Run first{numbers(0, 10)}, second{numbers(0, 9)};
  first.start(cache);
  CHECK_EQ(second.start(cache).num_cached, 8);
  CHECK_EQ(second.list.block_ids[0], first.list.block_ids[0]);
  CHECK_EQ(second.list.block_ids[1], first.list.block_ids[1]);
  CHECK_EQ(cache.statistics().used_blocks, 4);
  first.end(cache);
  CHECK_EQ(cache.statistics().used_blocks, 3);
  second.end(cache);
  CHECK_EQ(cache.statistics().used_blocks, 0);
}

TEST(the_last_token_is_always_computed) {
  KvCache cache(reusing(8));
  run_to_end(cache, numbers(0, 8));
  Run same{numbers(0, 8)};
  CHECK_EQ(same.start(cache).num_cached, 7);
  Run one{{0}};
  CHECK_EQ(one.start(cache).num_cached, 0);
}

TEST(generated_tokens_are_reused_as_prompts_are) {
  KvCache cache(reusing(8));
  Run first{numbers(0, 5)};
  first.start(cache);
  first.append(cache, numbers(5, 6));
  first.end(cache);
  CHECK_EQ(num_cached(cache, numbers(0, 11)), 11);
}

TEST(a_partly_equal_block_is_copied) {
  KvCache cache(reusing(8));
  Run first{numbers(0, 8)};
  first.start(cache);
  Run second{{0, 1, 2, 3, 4, 5, 99, 98}};
  const auto admission = cache.admit(second.list, second.key(), 0, true);
  CHECK_EQ(admission->num_cached, 6);
  CHECK_EQ(second.list.block_ids[0], first.list.block_ids[0]);
  CHECK(second.list.block_ids[1] != first.list.block_ids[1]);
  check_copies(cache, {{first.list.block_ids[1], second.list.block_ids[1]}});
}

TEST(the_last_block_of_an_ended_sequence_is_found_though_it_is_not_full) {
  KvCache cache(reusing(8));
  run_to_end(cache, numbers(0, 6));
  CHECK_EQ(num_cached(cache, numbers(0, 6)), 6);
  CHECK_EQ(num_cached(cache, numbers(0, 5)), 5);
}

TEST(a_partial_block_gives_way_to_a_longer_one) {
  KvCache cache(reusing(8));
  run_to_end(cache, numbers(0, 6));
  run_to_end(cache, numbers(0, 7));
  CHECK_EQ(cache.statistics().cached_blocks, 2);
  run_to_end(cache, numbers(0, 5));
  CHECK_EQ(cache.statistics().cached_blocks, 2);
  run_to_end(cache, numbers(0, 8));
  CHECK_EQ(cache.statistics().cached_blocks, 2);
  CHECK_EQ(num_cached(cache, numbers(0, 8)), 8);
  CHECK_EQ(cache.statistics().evicted_blocks, 0u);
}

TEST(the_block_that_agrees_longest_is_copied) {
  KvCache cache(reusing(16));
  for (const auto& tokens : std::vector<std::vector<int32_t>>{{1, 2, 3, 4}, {1, 2, 5, 5}, {1, 2, 5}, {1, 9, 9, 9}}) {
    run_to_end(cache, tokens);
  }
  CHECK_EQ(num_cached(cache, {1, 2, 5, 5}), 4);
  CHECK_EQ(num_cached(cache, {1, 2, 5, 6}), 3);
  CHECK_EQ(num_cached(cache, {1, 2, 4}), 2);
  CHECK_EQ(num_cached(cache, {1, 8}), 1);
  CHECK_EQ(num_cached(cache, {0}), 0);
}

TEST(a_partly_equal_block_is_taken_in_place_when_it_is_the_only_free_one) {
  KvCache cache(reusing(1));
  run_to_end(cache, numbers(0, 4));
  Run second{{0, 1, 2, 77}};
  CHECK_EQ(second.start(cache).num_cached, 3);
  check_copies(cache, {});
  CHECK(second.list.block_ids == std::vector<int32_t>{0});
}

TEST(two_sequences_that_compute_one_prefix_at_once_keep_a_block_each) {
  KvCache cache(reusing(8));
  Run first{numbers(0, 4)}, second{numbers(0, 4)};
  for (Run* run : {&first, &second}) {
    CHECK(cache.admit(run->list, run->key(), 1, true).has_value());
    CHECK(cache.extend(run->list, 4));
  }
  cache.commit(first.list, first.key());
  cache.commit(second.list, second.key());
  CHECK(first.list.block_ids != second.list.block_ids);
  first.end(cache);
  second.end(cache);
  CHECK_EQ(cache.statistics().cached_blocks, 1);
  CHECK_EQ(cache.free_blocks(), 8);
}

TEST(reuse_crosses_neither_lora_ids_nor_extra_ids) {
  KvCache cache(reusing(32));
  Run first{numbers(0, 8), {0, 0, 5, 6}, 3};
  first.start(cache);
  first.end(cache);
  const auto found = [&](uint64_t lora_task_id, std::vector<uint64_t> extra_ids) {
    Run probe{numbers(0, 9), std::move(extra_ids), lora_task_id};
    const int32_t cached = probe.start(cache).num_cached;
    cache.release(probe.list);
    return cached;
  };
  CHECK_EQ(found(3, {0, 0, 5, 6}), 8);
  CHECK_EQ(found(3, {0, 0, 5, 6, 0, 0, 0, 0, 0}), 8);
  CHECK_EQ(found(3, {0, 0, 5, 7}), 3);
  CHECK_EQ(found(3, {}), 2);
  CHECK_EQ(found(3, {1}), 0);
  CHECK_EQ(found(3, {0, 0, 5, 6, 0, 9}), 5);
  CHECK_EQ(found(4, {0, 0, 5, 6}), 0);
}

TEST(without_reuse_nothing_is_found_or_kept) {
  KvCacheOptions options = reusing(8);
  options.enable_reuse = false;
  KvCache off(options);
  run_to_end(off, numbers(0, 8));
  CHECK_EQ(num_cached(off, numbers(0, 8)), 0);
  CHECK_EQ(off.statistics().cached_blocks, 0);

  KvCache on(reusing(8));
  run_to_end(on, numbers(0, 8));
  Run run{numbers(0, 9)};
  CHECK_EQ(on.admit(run.list, run.key(), 0, false)->num_cached, 0);
}

TEST(a_release_without_tokens_keeps_only_what_was_committed) {
  KvCache cache(reusing(8));
  Run run{numbers(0, 6)};
  run.start(cache);
  cache.release(run.list);
  CHECK(run.list.block_ids.empty());
  CHECK_EQ(num_cached(cache, numbers(0, 6)), 4);
}

// Promises

TEST(an_admission_needs_blocks_that_nobody_was_promised) {
  KvCache cache(reusing(8));
  Run first{numbers(0, 3)}, second{numbers(100, 3)};
  CHECK(first.try_start(cache, 5).has_value());
  CHECK_EQ(cache.free_blocks(), 7);
  CHECK(!second.try_start(cache, 4).has_value());
  CHECK(second.list.block_ids.empty());
  CHECK(second.try_start(cache, 3).has_value());
  CHECK(!cache.extend(second.list, 16));
  CHECK_EQ(second.list.block_ids.size(), 1u);
  CHECK(cache.extend(second.list, 12));
  CHECK(cache.extend(first.list, 20));
  CHECK_EQ(cache.free_blocks(), 0);
  first.end(cache);
  CHECK(cache.extend(second.list, 16));
}

TEST(a_hit_costs_what_others_cannot_have_any_more) {
  KvCache cache(reusing(6));
  run_to_end(cache, numbers(0, 8));
  Run other{numbers(100, 4)};
  CHECK(other.try_start(cache, 3).has_value());
  // 5 free, 2 promised: 2 cached ones and one more are there, not two more.
  Run hit{numbers(0, 16)};
  CHECK(!hit.try_start(cache, 4).has_value());
  hit.tokens.resize(12);
  CHECK_EQ(hit.try_start(cache, 3)->num_cached, 8);
  // What is shared with a running sequence costs nothing.
  Run twin{numbers(0, 9)};
  CHECK(!twin.try_start(cache, 3).has_value());
  other.end(cache);
  CHECK_EQ(twin.try_start(cache, 3)->num_cached, 8);
}

// Eviction

TEST(empty_blocks_go_before_cached_ones_and_those_least_recently_used_first) {
  KvCache cache(reusing(4));
  run_to_end(cache, numbers(0, 4));
  run_to_end(cache, numbers(100, 4));
  run_to_end(cache, numbers(200, 8));
  CHECK_EQ(cache.statistics().evicted_blocks, 0u);
  CHECK_EQ(num_cached(cache, numbers(0, 4)), 4);  // used now
  Run run{numbers(300, 8)};
  run.start(cache);
  CHECK_EQ(cache.statistics().evicted_blocks, 2u);
  CHECK_EQ(num_cached(cache, numbers(0, 4)), 4);
  CHECK_EQ(num_cached(cache, numbers(100, 4)), 0);
  CHECK_EQ(num_cached(cache, numbers(200, 8)), 4);  // the end of a prefix goes first
}

TEST(low_priorities_are_evicted_first) {
  KvCache cache(reusing(4));
  const auto retention = retain({{0, 4, 80, {}}, {4, {}, 10, {}}});
  run_to_end(cache, numbers(0, 8), retention);
  run_to_end(cache, numbers(100, 8));
  Run run{numbers(200, 4)};
  run.start(cache);
  CHECK_EQ(num_cached(cache, numbers(0, 8)), 4);
  run.append(cache, numbers(204, 8));
  CHECK_EQ(num_cached(cache, numbers(0, 8)), 4);
  CHECK_EQ(num_cached(cache, numbers(100, 8)), 0);
  run.append(cache, {212});
  CHECK_EQ(num_cached(cache, numbers(0, 8)), 0);
}

TEST(generated_tokens_have_the_decode_priority) {
  KvCache cache(reusing(4));
  Run chat{numbers(0, 4)};
  chat.start(cache);
  chat.append(cache, numbers(4, 4));
  KvCacheRetention retention;
  retention.decode_priority = 1;
  chat.end(cache, retention, 4);
  run_to_end(cache, numbers(100, 8));
  run_to_end(cache, numbers(200, 4));
  CHECK_EQ(num_cached(cache, numbers(0, 8)), 4);
  CHECK_EQ(num_cached(cache, numbers(100, 8)), 8);
}

TEST(a_priority_expires_into_the_default) {
  KvCache cache(reusing(2));
  run_to_end(cache, numbers(0, 4), retain({{0, {}, 90, 1ms}}));
  run_to_end(cache, numbers(100, 4), retain({{0, {}, 60, 1h}}));
  std::this_thread::sleep_for(3ms);
  run_to_end(cache, numbers(200, 4));
  CHECK_EQ(num_cached(cache, numbers(0, 4)), 0);
  CHECK_EQ(num_cached(cache, numbers(100, 4)), 4);
}

TEST(a_sequence_without_retention_leaves_a_shared_priority_alone) {
  KvCache cache(reusing(3));
  run_to_end(cache, numbers(0, 4), retain({{0, {}, 90, {}}}));
  run_to_end(cache, numbers(0, 4));
  run_to_end(cache, numbers(100, 8));
  run_to_end(cache, numbers(200, 8));
  CHECK_EQ(num_cached(cache, numbers(0, 4)), 4);
}

TEST(what_follows_an_evicted_block_is_evicted_too) {
  KvCache cache(reusing(4));
  run_to_end(cache, numbers(0, 12), retain({{4, {}, 90, {}}, {0, 4, 1, {}}}));
  CHECK_EQ(cache.statistics().cached_blocks, 3);
  Run run{numbers(100, 8)};
  run.start(cache);
  CHECK_EQ(cache.statistics().evicted_blocks, 3u);
  CHECK_EQ(cache.statistics().cached_blocks, 0);
  CHECK_EQ(cache.free_blocks(), 2);
}

TEST(a_sequence_survives_the_eviction_of_the_prefix_before_its_own_blocks) {
  KvCache cache(reusing(4));
  Run first{numbers(0, 4)}, second{numbers(0, 4)};
  for (Run* run : {&first, &second}) {
    CHECK(cache.admit(run->list, run->key(), 1, true).has_value());
    CHECK(cache.extend(run->list, 4));
  }
  cache.commit(first.list, first.key());
  second.append(cache, numbers(4, 4));  // its second block follows the first one's block in the tree
  first.end(cache);
  Run third{numbers(100, 8)};
  third.start(cache);
  CHECK_EQ(cache.free_blocks(), 0);
  third.end(cache);
  second.append(cache, numbers(8, 4));  // by now the tree can learn all of its blocks
  CHECK_EQ(num_cached(cache, numbers(0, 12)), 12);
  second.end(cache);
  CHECK_EQ(cache.free_blocks(), 4);
}

// Host tier

TEST(evicted_blocks_move_to_the_host_and_come_back) {
  KvCache cache(reusing(2, 4));
  run_to_end(cache, numbers(0, 8));
  cache.take_copies();
  Run other{numbers(100, 8)};
  other.start(cache);
  check_copies(cache, {{1, 2}, {0, 3}});
  CHECK_EQ(cache.statistics().used_host_blocks, 2);
  CHECK_EQ(cache.statistics().evicted_blocks, 0u);
  other.end(cache);

  Run again{numbers(0, 8)};
  const auto admission = again.start(cache);
  CHECK_EQ(admission.num_cached, 7);
  CHECK(admission.copies_from_host);
  CHECK_EQ(cache.statistics().offloaded_blocks, 4u);
  CHECK_EQ(cache.statistics().onboarded_blocks, 2u);
}

TEST(copies_of_one_batch_are_right_in_their_order) {
  // One device block: each sequence moves the last one to the host, and comes back from there.
  KvCache cache(reusing(1, 2));
  run_to_end(cache, numbers(0, 4));
  run_to_end(cache, numbers(100, 4));
  Run first{concat_tokens(numbers(0, 4), {})};
  first.tokens.push_back(50);
  CHECK_EQ(cache.admit(first.list, first.key(), 0, true)->num_cached, 4);
  cache.release(first.list);
  check_copies(cache, {{0, 1}, {0, 2}, {1, 0}});
}

TEST(the_host_tier_evicts_in_turn) {
  KvCache cache(reusing(1, 1));
  run_to_end(cache, numbers(0, 4));
  run_to_end(cache, numbers(100, 4));
  run_to_end(cache, numbers(200, 4));
  check_copies(cache, {{0, 1}, {0, 1}});
  CHECK_EQ(cache.statistics().evicted_blocks, 1u);
  CHECK_EQ(num_cached(cache, numbers(0, 4)), 0);
  CHECK_EQ(num_cached(cache, numbers(100, 4)), 4);
}

TEST(a_block_of_low_priority_does_not_displace_a_better_one_on_the_host) {
  KvCache cache(reusing(1, 1));
  run_to_end(cache, numbers(0, 4), retain({{0, {}, 90, {}}}));
  run_to_end(cache, numbers(100, 4));
  run_to_end(cache, numbers(200, 4));
  CHECK_EQ(num_cached(cache, numbers(0, 4)), 4);
}

TEST(a_partly_equal_block_on_the_host_is_copied_from_there) {
  KvCache cache(reusing(1, 1));
  run_to_end(cache, numbers(0, 4));
  run_to_end(cache, numbers(100, 4));
  cache.take_copies();
  Run run{{0, 1, 2, 99}};
  const auto admission = cache.admit(run.list, run.key(), 0, true);
  CHECK_EQ(admission->num_cached, 3);
  CHECK(admission->copies_from_host);
  check_copies(cache, {{1, 0}});  // the host block is needed: the evicted one has no room there
}

TEST(a_block_on_its_way_from_the_host_makes_others_wait_too) {
  KvCache cache(reusing(2, 2));
  run_to_end(cache, numbers(0, 4));
  run_to_end(cache, numbers(100, 8));
  Run first{numbers(0, 5)}, second{numbers(0, 5)};
  CHECK(cache.admit(first.list, first.key(), 0, true)->copies_from_host);
  CHECK(cache.admit(second.list, second.key(), 0, true)->copies_from_host);
  cache.take_copies();
  cache.release(second.list);
  CHECK(!cache.admit(second.list, second.key(), 0, true)->copies_from_host);
}

// Attention windows

TEST(blocks_that_the_window_has_left_behind_are_freed) {
  KvCache cache(windowed(8, 8));
  Run run{numbers(0, 11)};
  run.start(cache);
  CHECK_EQ(run.list.block_ids[0], run.list.window_begin == 0 ? run.list.block_ids[0] : kFreedBlock);
  run.append(cache, numbers(11, 5));
  CHECK_EQ(run.list.block_ids[0], kFreedBlock);
  CHECK_EQ(run.list.block_ids[1], kFreedBlock);
  CHECK_EQ(cache.statistics().used_blocks, 2);
  run.append(cache, numbers(16, 1));
  CHECK_EQ(cache.statistics().used_blocks, 3);
  run.end(cache);
  CHECK_EQ(cache.free_blocks(), 8);
  CHECK_EQ(num_cached(cache, numbers(0, 17)), 17);
}

TEST(sink_tokens_keep_their_blocks) {
  KvCache cache(windowed(8, 4, 5));
  Run run{numbers(0, 20)};
  run.start(cache);
  CHECK(run.list.block_ids[0] != kFreedBlock);
  CHECK(run.list.block_ids[1] != kFreedBlock);
  CHECK_EQ(run.list.block_ids[2], kFreedBlock);
  CHECK_EQ(run.list.block_ids[3], kFreedBlock);
  CHECK(run.list.block_ids[4] != kFreedBlock);
}

TEST(peak_blocks_bound_what_a_windowed_sequence_holds) {
  for (const int32_t window : {1, 3, 4, 8, 9}) {
    for (const int32_t sink : {0, 3, 4}) {
      for (const int32_t chunk : {1, 3, 7}) {
        KvCacheOptions options = windowed(40, window, sink);
        options.enable_reuse = false;
        KvCache cache(options);
        const int32_t peak = cache.peak_blocks(100, chunk);
        CHECK(peak <= 25);
        Run run{numbers(0, 100)};
        CHECK(cache.admit(run.list, run.key(), peak, true).has_value());
        for (int32_t end = 0; end < 100;) {
          end = std::min(100, end + chunk);
          CHECK(cache.extend(run.list, end));
          CHECK(cache.statistics().used_blocks <= peak);
          CHECK_EQ(cache.statistics().used_blocks + run.list.num_reserved, peak);
          cache.commit(run.list, {std::span(run.tokens).first(end)});
        }
      }
    }
  }
  CHECK_EQ(KvCache(reusing(1)).peak_blocks(100, 1), 25);
}

TEST(a_windowed_sequence_finds_a_prefix_without_holding_all_of_it) {
  KvCache cache(windowed(16, 8));
  run_to_end(cache, numbers(0, 32));
  Run run{numbers(0, 34)};
  CHECK_EQ(run.start(cache).num_cached, 32);
  CHECK_EQ(run.list.block_ids[5], kFreedBlock);
  CHECK_EQ(cache.statistics().used_blocks, 3);
}

TEST(windowed_sequences_that_share_blocks_never_run_out_of_promised_ones) {
  KvCache cache(windowed(8, 8));
  const int32_t peak = cache.peak_blocks(100, 1);
  CHECK_EQ(peak, 3);
  Run parent{numbers(0, 8)};
  CHECK(cache.admit(parent.list, parent.key(), peak, true).has_value());
  CHECK(cache.extend(parent.list, 8));
  cache.commit(parent.list, parent.key());
  Run twin{numbers(0, 9)};
  CHECK(cache.admit(twin.list, twin.key(), peak, true).has_value());
  Run fork{numbers(0, 8)};
  CHECK(!cache.fork(parent.list, 8, fork.list, peak));
  CHECK(cache.fork(parent.list, 8, fork.list, 2));
  parent.append(cache, numbers(200, 40));
  CHECK(cache.extend(twin.list, 9));
  cache.commit(twin.list, twin.key());
  twin.append(cache, numbers(300, 40));
  cache.release(fork.list);
}

// Forks

TEST(a_fork_shares_full_blocks_and_copies_the_last) {
  KvCache cache(reusing(8));
  Run parent{numbers(0, 10)};
  parent.start(cache);
  Run child{numbers(0, 10)};
  CHECK(cache.fork(parent.list, 10, child.list, 4));
  CHECK_EQ(child.list.block_ids[0], parent.list.block_ids[0]);
  CHECK_EQ(child.list.block_ids[1], parent.list.block_ids[1]);
  check_copies(cache, {{parent.list.block_ids[2], child.list.block_ids[2]}});
  CHECK_EQ(cache.statistics().used_blocks, 4);
  CHECK_EQ(child.list.num_reserved, 1);
  parent.end(cache);
  child.append(cache, numbers(50, 3));
  child.end(cache);
  CHECK_EQ(cache.free_blocks(), 8);
  CHECK_EQ(num_cached(cache, concat_tokens(numbers(0, 10), numbers(50, 3))), 13);
}

TEST(a_fork_may_end_before_its_parent) {
  KvCache cache(reusing(8));
  Run parent{numbers(0, 8)};
  parent.start(cache);
  Run child{numbers(0, 7)};
  CHECK(cache.fork(parent.list, 7, child.list, 0));
  child.append(cache, {77, 78});
  CHECK_EQ(num_cached(cache, {0, 1, 2, 3, 4, 5, 6, 77}), 8);
}

TEST(a_fork_that_does_not_fit_changes_nothing) {
  KvCache cache(reusing(4));
  Run parent{numbers(0, 9)};
  parent.start(cache);
  BlockList child;
  CHECK(!cache.fork(parent.list, 9, child, 5));
  CHECK(child.block_ids.empty());
  CHECK(cache.fork(parent.list, 9, child, 3));
  CHECK(!cache.fork(parent.list, 9, child, 3));
  check_copies(cache, {{parent.list.block_ids[2], child.block_ids[2]}});
}

TEST(a_windowed_list_can_be_forked_at_its_last_tokens_only) {
  KvCache cache(windowed(16, 8));
  for (int32_t length = 9; length < 30; ++length) {
    Run parent{numbers(0, length)};
    parent.start(cache);
    BlockList child;
    CHECK(cache.fork(parent.list, length - 1, child, 0));
    CHECK(cache.extend(child, length));
    cache.commit(child, parent.key());
    cache.release(child);
    CHECK(cache.fork(parent.list, length, child, 0));
    cache.release(child);
    if (length > 20) CHECK(!cache.fork(parent.list, 9, child, 0));
    cache.release(parent.list);
  }
  CHECK_EQ(cache.free_blocks(), 16);
}

// Statistics

TEST(statistics_count_blocks_as_they_say) {
  KvCache cache(reusing(8, 2));
  Run first{numbers(0, 10)}, second{concat_tokens(numbers(0, 6), {90, 91, 92})};
  first.start(cache);
  second.start(cache);  // one shared, one copied, one new
  const KvCacheStatistics statistics = cache.statistics();
  CHECK_EQ(statistics.total_blocks, 8);
  CHECK_EQ(statistics.total_host_blocks, 2);
  CHECK_EQ(statistics.tokens_per_block, 4);
  CHECK_EQ(statistics.allocated_blocks, 6u);
  CHECK_EQ(statistics.new_blocks, 4u);
  CHECK_EQ(statistics.reused_blocks, 2u);
  CHECK_EQ(second.list.num_reused, 2);
  CHECK_EQ(statistics.used_blocks, 5);
  CHECK_EQ(statistics.free_blocks, 3);
  CHECK_EQ(statistics.cached_blocks, 0);
  first.end(cache);
  second.end(cache);
  CHECK_EQ(cache.statistics().cached_blocks, 5);
}

TEST_MAIN()
