#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "batch_manager/request.h"
#include "batch_manager/statistics.h"
#include "engine/engine.h"

namespace inflight {

struct KvCacheOptions {
  int32_t num_blocks = 0;
  int32_t num_host_blocks = 0;
  int32_t tokens_per_block = 0;
  bool enable_reuse = false;     // keep the blocks of ended sequences and share them by prefix
  int32_t attention_window = 0;  // of EngineInfo: blocks outside of it are freed; 0: none
  int32_t sink_tokens = 0;
};

// Tokens whose cached keys and values may stand for one another's: they agree in the tokens and in these.
struct PrefixKey {
  std::span<const int32_t> tokens;
  uint64_t lora_task_id = 0;
  std::span<const uint64_t> extra_ids = {};  // one for each of the first tokens; generated tokens have 0
};

// The KV-cache blocks of one sequence. Only KvCache changes it.
struct BlockList {
  std::vector<int32_t> block_ids;  // kFreedBlock where the attention window has left a block behind
  int32_t num_reserved = 0;        // blocks promised to it that it has yet to take
  int32_t num_reused = 0;          // of block_ids
  int32_t num_committed = 0;       // of block_ids: full blocks that the prefix tree has seen
  struct PrefixNode* last_committed = nullptr;
};

// What admission found for a sequence.
struct Admission {
  int32_t num_cached = 0;  // tokens whose keys and values are there; at most tokens.size() - 1
  bool copies_from_host = false;  // blocks come from the host tier: wait for take_copies()' handle before a step
};

// Hands out the engine's KV-cache blocks and keeps those of ended sequences for others with the same prefix: a prefix
// tree over full blocks, with reference counts. A free block that holds tokens is reused for other tokens only when
// there is no empty one, lowest retention priority first, then least recently used; with a host tier its contents
// move there first. No allocation in the steady state.
class KvCache {
 public:
  using Clock = std::chrono::steady_clock;

  explicit KvCache(const KvCacheOptions& options);
  ~KvCache();

  const KvCacheStatistics& statistics() const;
  int32_t free_blocks() const;  // blocks that are in no list, promised to a sequence or not
  int32_t blocks_for(int64_t num_tokens) const;  // of a list without freed blocks
  // The most blocks that a sequence which comes to `num_tokens` tokens holds at once, when a step adds at most
  // `max_chunk` tokens: fewer than blocks_for() with an attention window.
  int32_t peak_blocks(int64_t num_tokens, int32_t max_chunk) const;

  // Starts an empty list with the longest cached prefix of key.tokens, and reserves what is missing to `num_blocks` in
  // all (peak_blocks of its whole length under kGuaranteedNoEvict). nullopt, and nothing changes, if the blocks that
  // are not yet promised to others do not suffice. Without reuse (options, or `reuse` false) the prefix is empty. A
  // partly equal block is copied, so that num_cached may end inside a block.
  std::optional<Admission> admit(BlockList& list, const PrefixKey& key, int32_t num_blocks, bool reuse);

  // Starts an empty list with the parent's first `num_tokens` tokens: full blocks are shared, the last partial one is
  // copied. Reserves up to `num_blocks` in all. False, and nothing changes, if the blocks do not suffice. (Prompts of
  // several sequences, and beams.)
  bool fork(const BlockList& parent, int32_t num_tokens, BlockList& list, int32_t num_blocks);

  // Appends blocks until the list holds `num_tokens` tokens. Never false within a reservation; otherwise false, and
  // nothing changes, when all blocks are in use or promised.
  bool extend(BlockList& list, int64_t num_tokens);

  // key.tokens (without tokens whose keys and values are not computed yet) are in the list's blocks now: others may
  // share its full blocks, and blocks that the window has left behind are freed.
  void commit(BlockList& list, const PrefixKey& key);

  // Gives back all blocks and reservations and empties the list. key as for commit(); its blocks are kept for reuse by
  // the retention's priorities.
  void release(BlockList& list, const PrefixKey& key, int32_t prompt_length, const KvCacheRetention& retention);
  void release(BlockList& list);  // nothing new is kept for reuse: an error, or tokens that nobody should share

  // The copies that the calls since the last take_copies() ask for, in order: hand them to Engine::copy_blocks before
  // the next step. Valid until the next call.
  std::span<const BlockCopy> take_copies();

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace inflight
