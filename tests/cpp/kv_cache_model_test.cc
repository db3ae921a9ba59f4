// Random sequences over a cache, and over a plain model of the blocks' contents. Whatever a sequence reads back through
// its list must be its own tokens.
#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>

#include "batch_manager/kv_cache.h"
#include "check.h"

using namespace inflight;

namespace {

struct Setting {
  const char* name;
  KvCacheOptions options;
  bool guarantees = true;  // blocks are promised for a sequence's whole length; else, sequences are released to go on
};

struct Sequence {
  std::vector<int32_t> tokens;  // all that it will come to
  std::vector<uint64_t> extra_ids;
  uint64_t lora_task_id = 0;
  int32_t prompt_length = 0;
  int32_t num_computed = 0;
  BlockList list;

  PrefixKey key(int32_t num_tokens) const {
    const size_t num_extra = std::min<size_t>(extra_ids.size(), num_tokens);
    return {std::span(tokens).first(num_tokens), lora_task_id, std::span(extra_ids).first(num_extra)};
  }
};

constexpr int32_t kMaxLength = 40;
constexpr int32_t kMaxChunk = 9;
constexpr int32_t kMaxDrafts = 3;

class Model {
 public:
  Model(const Setting& setting, uint64_t seed)
      : setting_(setting),
        options_(setting.options),
        cache_(setting.options),
        contents_((options_.num_blocks + options_.num_host_blocks) * options_.tokens_per_block),
        random_(seed) {}

  void run(int32_t num_operations) {
    for (int32_t i = 0; i < num_operations; ++i) {
      switch (draw(10)) {
        case 0:
        case 1: start(); break;
        case 2: fork(); break;
        case 3: end(); break;
        default: step(); break;
      }
      check_counts();
    }
    while (!sequences_.empty()) end();
    check_counts();
    CHECK_EQ(cache_.free_blocks(), options_.num_blocks);
    check_all_blocks_can_be_taken();
  }

 private:
  using Cells = std::vector<uint64_t>;

  int32_t draw(int32_t bound) { return static_cast<int32_t>(random_() % bound); }

  static uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ (value + 1)) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 29);
  }
  // What the keys and values of each token depend on.
  static Cells cells(const Sequence& sequence) {
    Cells cells;
    uint64_t hash = mix(1, sequence.lora_task_id);
    for (size_t i = 0; i < sequence.tokens.size(); ++i) {
      hash = mix(mix(hash, sequence.tokens[i]), i < sequence.extra_ids.size() ? sequence.extra_ids[i] : 0);
      cells.push_back(hash);
    }
    return cells;
  }
  uint64_t& cell(const BlockList& list, int32_t token) {
    const int32_t block = list.block_ids[token / options_.tokens_per_block];
    CHECK(block >= 0 && block < options_.num_blocks);
    return contents_[block * options_.tokens_per_block + token % options_.tokens_per_block];
  }

  void copy_blocks() {
    for (const BlockCopy& copy : cache_.take_copies()) {
      std::copy_n(contents_.begin() + copy.source * options_.tokens_per_block, options_.tokens_per_block,
                  contents_.begin() + copy.destination * options_.tokens_per_block);
    }
  }

  bool is_visible(int32_t token, int32_t from) const {
    return options_.attention_window == 0 || token < options_.sink_tokens || token > from - options_.attention_window;
  }

  void check_reads(const Sequence& sequence) {
    const Cells expected = cells(sequence);
    for (int32_t token = 0; token < sequence.num_computed; ++token) {
      if (is_visible(token, sequence.num_computed)) CHECK_EQ(cell(sequence.list, token), expected[token]);
    }
  }

  void write(const Sequence& sequence, int32_t token, uint64_t value) {
    for (const auto& other : sequences_) {
      if (other.get() == &sequence) continue;
      const int32_t block = sequence.list.block_ids[token / options_.tokens_per_block];
      CHECK(std::find(other->list.block_ids.begin(), other->list.block_ids.end(), block) ==
            other->list.block_ids.end());
    }
    cell(sequence.list, token) = value;
  }

  int32_t guarantee(int32_t length) const {
    return setting_.guarantees ? cache_.peak_blocks(length + kMaxDrafts, kMaxChunk + kMaxDrafts) : 0;
  }

  void start() {
    auto sequence = std::make_unique<Sequence>();
    // Few different tokens, and the beginnings of others: many prefixes agree.
    if (!past_.empty() && draw(3) > 0) {
      *sequence = past_[draw(past_.size())];
      sequence->tokens.resize(draw(sequence->tokens.size()) + 1);
    } else if (draw(4) == 0) {
      sequence->lora_task_id = draw(2);
      for (int32_t i = draw(12); i > 0; --i) sequence->extra_ids.push_back(draw(2));
    }
    const int32_t length = std::max<int32_t>(sequence->tokens.size(), 1 + draw(kMaxLength));
    while (static_cast<int32_t>(sequence->tokens.size()) < length) sequence->tokens.push_back(draw(2));
    sequence->prompt_length = 1 + draw(length);
    if (sequence->extra_ids.size() > static_cast<size_t>(sequence->prompt_length)) {
      sequence->extra_ids.resize(sequence->prompt_length);
    }

    const bool reuse = draw(10) > 0;
    const PrefixKey key = sequence->key(sequence->prompt_length);
    const auto before = cache_.statistics();
    const auto admission = cache_.admit(sequence->list, key, guarantee(length), reuse);
    if (!admission) {
      CHECK(sequence->list.block_ids.empty());
      CHECK_EQ(before.free_blocks, cache_.free_blocks());
      CHECK(!sequences_.empty());
      return;
    }
    CHECK(admission->num_cached < sequence->prompt_length);
    CHECK(reuse || admission->num_cached == 0);
    sequence->num_computed = admission->num_cached;
    if (before.evicted_blocks == 0) {
      const int32_t expected = reuse && options_.enable_reuse ? longest_known(*sequence) : 0;
      CHECK_EQ(admission->num_cached, expected);
    }
    if (draw(2) == 0) {
      copy_blocks();
      check_reads(*sequence);
    }
    sequences_.push_back(std::move(sequence));
  }

  void fork() {
    if (sequences_.empty()) return;
    const Sequence& parent = *sequences_[draw(sequences_.size())];
    const int32_t num_tokens = parent.num_computed - draw(2);
    if (num_tokens < 1) return;
    auto child = std::make_unique<Sequence>();
    child->tokens.assign(parent.tokens.begin(), parent.tokens.begin() + num_tokens);
    child->extra_ids = parent.extra_ids;
    child->extra_ids.resize(std::min<size_t>(child->extra_ids.size(), num_tokens));
    child->lora_task_id = parent.lora_task_id;
    child->prompt_length = child->num_computed = num_tokens;
    const int32_t length = num_tokens + 1 + draw(8);
    while (static_cast<int32_t>(child->tokens.size()) < length) child->tokens.push_back(draw(2));
    if (!cache_.fork(parent.list, num_tokens, child->list, guarantee(length))) {
      CHECK(child->list.block_ids.empty());
      return;
    }
    sequences_.push_back(std::move(child));
  }

  // A context chunk, or a generated token with drafts of which none is accepted.
  void step() {
    if (sequences_.empty()) return;
    Sequence& sequence = *sequences_[draw(sequences_.size())];
    const int32_t length = static_cast<int32_t>(sequence.tokens.size());
    const int32_t end = std::min(length, sequence.num_computed + 1 + draw(kMaxChunk));
    const int32_t num_drafts = draw(kMaxDrafts + 1);
    const bool is_extended = cache_.extend(sequence.list, end + num_drafts);
    if (!is_extended) {
      CHECK(!setting_.guarantees);
      return;
    }
    copy_blocks();
    check_reads(sequence);
    const Cells values = cells(sequence);
    for (int32_t token = sequence.num_computed; token < end; ++token) write(sequence, token, values[token]);
    for (int32_t token = end; token < end + num_drafts; ++token) write(sequence, token, random_());
    sequence.num_computed = end;
    if (setting_.guarantees || draw(4) > 0) commit(sequence);
    if (setting_.guarantees && draw(8) == 0) cache_.lower_guarantee(sequence.list, guarantee(length));
  }

  void commit(Sequence& sequence) {
    cache_.commit(sequence.list, sequence.key(sequence.num_computed));
    const int32_t num_full = sequence.num_computed / options_.tokens_per_block * options_.tokens_per_block;
    learn(sequence, num_full);
  }

  void learn(const Sequence& sequence, int32_t num_tokens) {
    Cells values = cells(sequence);
    values.resize(num_tokens);
    known_.insert(values.begin(), values.end());
  }

  // With every block that was ever computed: the longest prefix that a new sequence could find.
  int32_t longest_known(const Sequence& sequence) {
    const Cells values = cells(sequence);
    int32_t length = 0;
    while (length < sequence.prompt_length - 1 && known_.contains(values[length])) ++length;
    return length;
  }

  void end() {
    if (sequences_.empty()) return;
    const size_t index = draw(sequences_.size());
    Sequence& sequence = *sequences_[index];
    if (draw(5) == 0) {
      cache_.release(sequence.list);
    } else {
      KvCacheRetention retention;
      for (int32_t begin = 0; draw(3) == 0 && begin < kMaxLength; begin += 7) {
        retention.ranges.push_back({begin, begin + 1 + draw(10), draw(101), std::nullopt});
        if (draw(2) == 0) retention.ranges.back().duration = std::chrono::milliseconds(draw(2));
      }
      if (draw(3) == 0) retention.decode_priority = draw(101);
      cache_.release(sequence.list, sequence.key(sequence.num_computed), sequence.prompt_length, retention);
      learn(sequence, sequence.num_computed);
    }
    CHECK(sequence.list.block_ids.empty());
    CHECK_EQ(sequence.list.num_reserved, 0);
    past_.push_back(std::move(sequence));
    past_.back().list = {};
    sequences_.erase(sequences_.begin() + index);
  }

  void check_counts() {
    std::set<int32_t> used;
    int32_t num_reserved = 0;
    for (const auto& sequence : sequences_) {
      num_reserved += sequence->list.num_reserved;
      for (int32_t block : sequence->list.block_ids) {
        if (block != kFreedBlock) used.insert(block);
      }
    }
    const KvCacheStatistics statistics = cache_.statistics();
    CHECK_EQ(statistics.used_blocks, static_cast<int32_t>(used.size()));
    CHECK_EQ(statistics.free_blocks, options_.num_blocks - statistics.used_blocks);
    CHECK(num_reserved <= statistics.free_blocks);
    CHECK(statistics.cached_blocks <= statistics.free_blocks);
    CHECK(statistics.used_host_blocks >= 0 && statistics.used_host_blocks <= options_.num_host_blocks);
    CHECK_EQ(statistics.allocated_blocks, statistics.new_blocks + statistics.reused_blocks);
  }

  void check_all_blocks_can_be_taken() {
    BlockList list;
    CHECK(cache_.admit(list, {}, options_.num_blocks, false).has_value());
    CHECK(cache_.extend(list, static_cast<int64_t>(options_.num_blocks) * options_.tokens_per_block));
    CHECK_EQ(std::set<int32_t>(list.block_ids.begin(), list.block_ids.end()).size(), list.block_ids.size());
    CHECK_EQ(cache_.statistics().used_blocks, options_.num_blocks);
    CHECK_EQ(cache_.statistics().cached_blocks, 0);
    cache_.release(list);
  }

  const Setting setting_;
  const KvCacheOptions options_;
  KvCache cache_;
  std::vector<uint64_t> contents_;  // [blocks, tokens_per_block]
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  std::vector<Sequence> past_;
  std::set<uint64_t> known_;
};

constexpr KvCacheOptions options(int32_t num_blocks, int32_t num_host_blocks, int32_t tokens_per_block,
                                 int32_t attention_window = 0, int32_t sink_tokens = 0, bool enable_reuse = true) {
  return {num_blocks, num_host_blocks, tokens_per_block, enable_reuse, attention_window, sink_tokens};
}

// Says which run has failed, when a check ends the program.
struct RunningModel {
  std::string name;
  ~RunningModel() {
    if (!name.empty()) std::cerr << "in " << name << std::endl;
  }
} running_model;

void run_seeds(const Setting& setting) {
  for (int32_t seed = 0; seed < 150; ++seed) {
    running_model.name = concat(setting.name, setting.guarantees ? ", promised" : "", ", seed ", seed);
    Model(setting, seed).run(400);
  }
  running_model.name.clear();
}

}  // namespace

TEST(sequences_read_their_own_tokens_from_an_ample_cache) { run_seeds({"ample", options(4000, 0, 4)}); }

TEST(sequences_read_their_own_tokens_from_a_full_cache) {
  for (const bool guarantees : {true, false}) {
    run_seeds({"full", options(24, 0, 4), guarantees});
    run_seeds({"one token a block", options(60, 0, 1), guarantees});
    run_seeds({"no reuse", options(24, 0, 4, 0, 0, false), guarantees});
  }
}

TEST(sequences_read_their_own_tokens_from_two_tiers) {
  for (const bool guarantees : {true, false}) {
    run_seeds({"small host", options(24, 5, 4), guarantees});
    run_seeds({"large host", options(16, 60, 4), guarantees});
    run_seeds({"large blocks", options(8, 4, 8), guarantees});
  }
}

TEST(sequences_read_their_own_tokens_through_attention_windows) {
  for (const bool guarantees : {true, false}) {
    run_seeds({"window", options(24, 0, 4, 8), guarantees});
    run_seeds({"narrow window", options(24, 0, 4, 3), guarantees});
    run_seeds({"window and sinks", options(24, 0, 4, 7, 5), guarantees});
    run_seeds({"window and host", options(16, 6, 4, 9), guarantees});
  }
}

TEST_MAIN()
