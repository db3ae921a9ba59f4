#include "kv_cache_runs.h"

using namespace inflight;
using namespace inflight::test;

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
