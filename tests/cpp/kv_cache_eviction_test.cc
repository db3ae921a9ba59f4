#include <chrono>
#include <thread>

#include "kv_cache_runs.h"

using namespace inflight;
using namespace inflight::test;
using namespace std::chrono_literals;

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

TEST_MAIN()
