#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/sampling_config.h"

namespace inflight {

// In SequenceSlice::tokens: take the token that this slot sampled in the step submitted before this
// one, so that a device need not hand it to the host first.
inline constexpr int32_t kPreviousToken = -1;

// In SequenceSlice::block_ids: a block that every layer's attention window has left behind.
inline constexpr int32_t kFreedBlock = -1;

// Which of a slice's tokens get a row in StepOutput::logits: the model's raw logits, before any penalty.
enum class ReturnedLogits {
  kNone,
  kSampled,  // one row for each token that the slice adds to StepOutput::tokens; one row for all candidates
  kAll,      // one row for each of its input tokens
};

// One sequence's share of a step.
struct SequenceSlice {
  int32_t slot;                        // stable index < max_batch_size, keys per-sequence state
  std::span<const int32_t> tokens;     // to process now: a context chunk, or 1 generated token; then drafts
  int32_t past_length;                 // tokens already in the KV cache
  std::span<const int32_t> block_ids;  // KV-cache blocks that hold past_length + tokens.size() tokens
  bool samples = true;                 // false while context chunks remain
  int32_t num_drafts = 0;              // the last of `tokens` are draft tokens, to be verified; needs `samples`
  ReturnedLogits returned_logits = ReturnedLogits::kNone;
  bool is_masked = false;              // StepInput::masks says which tokens it may sample; not with drafts
};

// Rows of StepOutput::logits that it may take.
inline int32_t num_returned_logits(const SequenceSlice& slice) {
  if (slice.returned_logits == ReturnedLogits::kAll) return static_cast<int32_t>(slice.tokens.size());
  return slice.returned_logits == ReturnedLogits::kSampled && slice.samples ? slice.num_drafts + 1 : 0;
}

// Which tokens the masked slices of a step may sample. Made beside the forward pass.
class TokenMasks {
 public:
  virtual ~TokenMasks() = default;
  // Bit i % 32 of word i / 32 allows token i; [(vocab_size + 31) / 32] words, valid until the step's end.
  // Called once a slice from any of the engine's threads, when its logits are there; may wait.
  virtual std::span<const uint32_t> mask(int32_t slot) = 0;
};

// One ragged step over at most max_batch_size slices, each of another slot, and max_num_tokens tokens.
struct StepInput {
  std::span<const SequenceSlice> sequences;
  TokenMasks* masks = nullptr;  // must live until wait() returns; set if any slice is_masked
};

struct SampledToken {
  int32_t slot;
  int32_t token;
  float log_prob;  // 0 unless the slot's SamplingConfig::return_log_probs or num_candidates
  int32_t rank = 0;  // 1 + the number of likelier tokens; 0 unless the slot's SamplingConfig::num_top_log_probs
};

struct TokenLogProb {
  int32_t token;
  float log_prob;
};

struct StepOutput {
  // In the order of the input, for each slice with samples: 1 to num_drafts + 1 tokens, of which all but the last
  // are its first draft tokens, accepted; or, with SamplingConfig::num_candidates, that many, best first.
  //
  // A draft is accepted when it is the very token that is sampled in its place, so that drafts change neither
  // greedy nor seeded output.
  std::vector<SampledToken> tokens;
  // For each of `tokens`, its slot's SamplingConfig::num_top_log_probs most likely tokens, best first.
  std::vector<TokenLogProb> top_log_probs;
  // [rows by returned_logits, vocab_size], in the order of the input; the engine's own, until the next submit().
  std::span<const float> logits;
};

using StepHandle = uint64_t;
using CopyHandle = uint64_t;

// Blocks num_blocks .. num_blocks + num_host_blocks - 1 are the host tier's; no slice may name them.
struct BlockCopy {
  int32_t source;
  int32_t destination;
};

// What the engine was built for and what it got.
struct EngineInfo {
  std::string model_type;  // "llama", "qwen2" …
  int32_t vocab_size;
  int32_t max_batch_size;    // slots
  int32_t max_num_tokens;    // tokens in one step
  int32_t max_seq_len;       // prompt and generated tokens of one sequence
  int32_t max_returned_logits = std::numeric_limits<int32_t>::max();  // rows in one step; at least max_batch_size
  int64_t logits_bytes = std::numeric_limits<int64_t>::max();  // that requests may hold at once
  int32_t tokens_per_block;  // a power of two
  int32_t num_blocks;        // KV-cache blocks that the engine holds
  int32_t num_host_blocks = 0;  // more blocks, in host memory, that copies can reach
  int64_t kv_bytes_per_block;
  int32_t max_beam_width = 1;
  int32_t attention_window = 0;  // the largest of all layers, in tokens; 0: some layer sees everything
  int32_t sink_tokens = 0;       // at the start of a sequence, seen by every token in spite of windows
  std::vector<int32_t> end_ids;  // of the model's generation config
  int32_t pad_id;
};

// Runs ragged forward passes and samples. One thread (the batch manager's loop) calls it.
// A step that fails throws Error from wait(); the engine stays usable for other slots.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const EngineInfo& info() const = 0;

  // Gives a slot to a sequence: how it samples, its prompt (penalties look at it, dynamic RoPE scaling at its
  // length), and what it has generated already: a sequence that was paused, or a beam that follows another one, goes
  // on as if it had sampled these tokens in this slot. Not while a step that holds the slot is in flight.
  //
  // A slot with num_candidates is never told which of them its beam takes: it counts the tokens of its slices at
  // positions past the prompt and what it has generated as generated, too. kPreviousToken is not for such slots.
  virtual void configure(int32_t slot, const SamplingConfig& config, std::span<const int32_t> prompt,
                         std::span<const int32_t> generated = {}) = 0;

  // Starts a step and returns before it is done; everything the input's spans point at must live until
  // wait() returns. Steps run in the order of submission.
  virtual StepHandle submit(const StepInput& input) = 0;
  virtual StepOutput wait(StepHandle step) = 0;

  // Starts copying whole KV-cache blocks, one after another, after the steps that were submitted before. Later steps
  // run beside it, except that a step waits for the copies that touch blocks of its slices.
  virtual CopyHandle copy_blocks(std::span<const BlockCopy> copies) = 0;
  // Whether these copies, and all before them, are done. Never waits.
  virtual bool is_copied(CopyHandle copies) const = 0;
};

// What may differ between two servers of one engine directory.
struct EngineOptions {
  int32_t num_threads = 0;  // CPU engine; 0 → the CPUs that this process may use
  std::optional<int64_t> max_tokens_in_kv_cache = std::nullopt;  // overrides build_config.kv_cache_bytes
  int64_t kv_cache_host_bytes = 0;                               // of the host tier
  // Attention windows in tokens, by layer, repeated over the layers; never wider than the model's own. Empty: its own;
  // 0, or max_seq_len and more: all tokens. At least tokens_per_block.
  std::vector<int32_t> max_attention_windows = {};
  int32_t sink_tokens = 0;  // less than every window
};

// Loads the engine in `directory` (config.json + rank0.*) for the device that its config names.
// Throws Error naming the file and the field for anything that does not fit together.
std::unique_ptr<Engine> load_engine(const std::filesystem::path& directory, const EngineOptions& options = {});

}  // namespace inflight
