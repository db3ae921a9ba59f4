#include "kv_cache_runs.h"

using namespace inflight;
using namespace inflight::test;

TEST(blocks_that_the_window_has_left_behind_are_freed) {
  KvCache cache(windowed(8, 8));
  Run run{numbers(0, 11)};
  run.start(cache);
  CHECK(run.list.block_ids[0] != kFreedBlock);
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

TEST(a_lowered_guarantee_gives_others_what_a_window_needs_no_more) {
  KvCache cache(windowed(10, 4));
  Run run{numbers(0, 32)};
  CHECK(run.try_start(cache, 8).has_value());
  CHECK_EQ(cache.free_blocks(), 9);
  Run other{numbers(100, 4)};
  CHECK(!other.try_start(cache, 4).has_value());
  cache.lower_guarantee(run.list, cache.peak_blocks(100, 1));
  CHECK_EQ(run.list.num_reserved, 1);
  CHECK(other.try_start(cache, 8).has_value());
  run.append(cache, numbers(32, 40));
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

TEST_MAIN()
