#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "batch_manager/block_pool.h"
#include "batch_manager/prefix_tree.h"
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

// The KV-cache blocks of one sequence. Only KvCache changes it.
struct BlockList {
  std::vector<int32_t> block_ids;  // kFreedBlock where the attention window has left a block behind
  int32_t num_guaranteed = 0;      // blocks that it may hold at once, whatever others do
  int32_t num_reserved = 0;        // of them, those it has yet to take
  int32_t num_reused = 0;          // of block_ids: shared with, or copied from, what was cached at admission
  int32_t num_committed = 0;       // of block_ids: full blocks that the prefix tree has seen
  PrefixPosition position;         // of the last of them in the tree
  int32_t window_begin = 0;        // block_ids before it, but for the sink tokens' blocks, are kFreedBlock
};

// What admission found for a sequence.
struct Admission {
  int32_t num_cached = 0;  // tokens whose keys and values are there; at most tokens.size() - 1
  bool copies_from_host = false;  // some come from the host tier: no step before they are done
};

// Hands out the engine's KV-cache blocks and keeps those of ended sequences for others with the same prefix: a prefix
// tree over full blocks, with reference counts. A free block that holds tokens is reused for other tokens only when
// there is no empty one, lowest retention priority first, then least recently used; with a host tier its contents
// move there first. No allocation in the steady state.
class KvCache {
 public:
  explicit KvCache(const KvCacheOptions& options);
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  KvCacheStatistics statistics() const;
  int32_t free_blocks() const { return pool_.num_free(); }  // in no list, promised to a sequence or not
  int32_t blocks_for(int64_t num_tokens) const;              // of a list without freed blocks
  // The most blocks that a sequence which comes to `num_tokens` tokens holds at once, when it extends its list by at
  // most `max_chunk` tokens after a commit(): fewer than blocks_for() with an attention window.
  int32_t peak_blocks(int64_t num_tokens, int64_t max_chunk) const;

  // Starts an empty list with the longest cached prefix of key.tokens, and reserves what is missing to `num_blocks` in
  // all (peak_blocks of its whole length under kGuaranteedNoEvict). Until its release, the list may then hold so many
  // at once: blocks that the window leaves behind are reserved anew. nullopt, and nothing changes, if the blocks that
  // are not yet promised to others do not suffice. Without reuse (options, or `reuse` false) the prefix is empty. A
  // partly equal block is copied, so that num_cached may end inside a block.
  std::optional<Admission> admit(BlockList& list, const PrefixKey& key, int32_t num_blocks, bool reuse);

  // Starts an empty list with the parent's first `num_tokens` tokens: full blocks are shared, the last partial one is
  // copied. Reserves up to `num_blocks` in all. False, and nothing changes, if the blocks do not suffice. (Prompts of
  // several sequences, and beams.) With an attention window, num_tokens may be one fewer than the parent's last
  // commit(), not less: the window has left behind what it would look at, and the result is false.
  bool fork(const BlockList& parent, int32_t num_tokens, BlockList& list, int32_t num_blocks);

  // Appends blocks until the list holds `num_tokens` tokens. Never false within a reservation; otherwise false, and
  // nothing changes, when all blocks are in use or promised.
  bool extend(BlockList& list, int64_t num_tokens);

  // From now on, the list needs at most `num_blocks` at once: what is reserved beyond is there for others. (After the
  // context phase, the chunks of a windowed sequence are short.)
  void lower_guarantee(BlockList& list, int32_t num_blocks);

  // key.tokens (without tokens whose keys and values are not computed yet) are in the list's blocks now: others may
  // share its full blocks, and blocks that the window has left behind are freed.
  void commit(BlockList& list, const PrefixKey& key);

  // Gives back all blocks and reservations and empties the list. key as for commit(); its blocks are kept for reuse by
  // the retention's priorities: a block has the priority of its first token. Blocks that no range covers keep the
  // priority that another sequence gave them; durations begin now.
  void release(BlockList& list, const PrefixKey& key, int32_t prompt_length, const KvCacheRetention& retention);
  void release(BlockList& list);  // nothing new is kept for reuse: an error, or tokens that nobody should share

  // The copies that the calls since the last take_copies() ask for, in order: they are the next step's. Valid until the
  // next call.
  std::span<const BlockCopy> take_copies() { return pool_.take_copies(); }
  // The last taken copies failed: nobody will share what they should have filled. Lists that hold such a block are
  // lost.
  void forget(std::span<const BlockCopy> copies);

 private:
  // Blocks that are neither in a list nor promised to one.
  int32_t available() const;
  // The first block after the sink blocks that a sequence with `num_tokens` tokens must hold.
  int32_t window_begin(int64_t num_tokens) const;
  bool is_left_behind(int32_t index, int32_t window_begin) const;
  int32_t num_left_behind(int32_t num_blocks, int32_t window_begin) const;  // of the first num_blocks

  // The nodes of the prefix tree that key.tokens begin with, in prefix_; and what agrees with the tokens after them.
  PrefixTree::Match find_prefix(const PrefixKey& key);
  // The child of `parent` that begins with these tokens; a new one, if there is none, of `block`, which holds them.
  int32_t keep(int32_t parent, const PrefixKey& tokens, int32_t block);
  // Whether the tree still leads to the list's committed blocks. If not, but the list has them all, it begins anew.
  bool attach(BlockList& list) const;
  void keep_full_blocks(BlockList& list, const PrefixKey& key);
  void leave_behind(BlockList& list, int64_t num_tokens);
  int32_t held_blocks(const BlockList& list) const;

  const KvCacheOptions options_;
  const int32_t num_sink_blocks_;
  PrefixTree tree_;
  BlockPool pool_;
  int32_t num_reserved_ = 0;  // over all lists
  std::vector<int32_t> prefix_;
  uint64_t num_new_ = 0;
  uint64_t num_reused_ = 0;
};

}  // namespace inflight
