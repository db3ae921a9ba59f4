#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/error.h"
#include "engine/sampling_config.h"

namespace inflight {

// In SequenceSlice::tokens: the token that this slot samples last in the steps launched before, which only the engine
// knows while they run.
inline constexpr int32_t kPreviousToken = -1;

// In SequenceSlice::new_block_ids: a block that every layer's attention window has left behind.
inline constexpr int32_t kFreedBlock = -1;

// Blocks num_blocks .. num_blocks + num_host_blocks - 1 are the host tier's; no slice may name them.
struct BlockCopy {
  int32_t source;
  int32_t destination;
};

// Gives a slot to a sequence, and empties the slot's block list; what the slot held before is gone.
//
// Without a parent: how the sequence samples, its prompt (penalties look at it, dynamic RoPE scaling at its length),
// and what it has generated already: a sequence that was paused goes on as if it had sampled these tokens in this slot.
//
// With a parent, a fork: the slot samples as the parent's does and has the parent's history, as the steps before have
// left it; its block list begins with the parent's first blocks. Nothing else is given.
struct SlotSetup {
  int32_t slot;
  int32_t parent = -1;             // a slot; -1: no fork
  int32_t num_parent_blocks = 0;   // of a fork
  SamplingConfig sampling = {};    // of a sequence, as the two below
  std::span<const int32_t> prompt = {};
  std::span<const int32_t> generated = {};
};

// Which of a slice's tokens get a row in StepOutput::logits: the model's raw logits, before any penalty.
enum class ReturnedLogits {
  kNone,
  kSampled,  // one row for each token that the slice adds to StepOutput::tokens; one row for all candidates
  kAll,      // one row for each of its input tokens
};

// One sequence's share of a step.
struct SequenceSlice {
  int32_t slot;                        // < max_batch_size; a setup of this step or an earlier one gave it away
  std::span<const int32_t> tokens;     // to process now: a context chunk, or 1 generated token; then drafts
  // Tokens already in the KV cache. Where tokens begin with kPreviousToken, the most that there may be: the engine
  // knows how many drafts of the steps before were accepted.
  int32_t past_length;
  std::span<const int32_t> new_block_ids;  // KV-cache blocks that the slot's list gains: then it holds all tokens
  bool samples = true;                 // false while context chunks remain
  int32_t num_drafts = 0;              // the last of `tokens` are draft tokens, to be verified; needs `samples`
  ReturnedLogits returned_logits = ReturnedLogits::kNone;
  // Which tokens may be sampled: bit i % 32 of word i / 32 allows token i; [(vocab_size + 31) / 32] words. Empty: all
  // tokens. Not with drafts.
  std::span<const uint32_t> mask = {};
};

// Rows of StepOutput::logits that it may take.
inline int32_t num_returned_logits(const SequenceSlice& slice) {
  if (slice.returned_logits == ReturnedLogits::kAll) return static_cast<int32_t>(slice.tokens.size());
  return slice.returned_logits == ReturnedLogits::kSampled && slice.samples ? slice.num_drafts + 1 : 0;
}

// All that an engine is told for one step, plain data (step_message.h makes bytes of it): copies, then setups, then
// slices take effect, each in order, after everything of the steps before. Slots and blocks may therefore be given to
// others while steps that use them are in flight.
struct StepInput {
  std::span<const BlockCopy> copies = {};
  std::span<const SlotSetup> setups = {};       // each of another slot
  std::span<const SequenceSlice> slices = {};  // at most max_batch_size, each of another slot; max_num_tokens tokens
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

// A slice that could not be computed, nobody else's fault.
struct SlotFailure {
  int32_t slot;
  Error error;
};

// What a step gave. The memory is the engine's: valid until the next finish().
struct StepOutput {
  // In the order of the input, for each slice with samples: 1 to num_drafts + 1 tokens, of which all but the last
  // are its first draft tokens, accepted; or, with SamplingConfig::num_candidates, that many, best first.
  //
  // A draft is accepted when it is the very token that is sampled in its place, so that drafts change neither
  // greedy nor seeded output.
  std::span<const SampledToken> tokens = {};
  // For each of `tokens`, its slot's SamplingConfig::num_top_log_probs most likely tokens, best first.
  std::span<const TokenLogProb> top_log_probs = {};
  std::span<const float> logits = {};  // [rows by returned_logits, vocab_size], in the order of the input
  // Slices that gave nothing of the above: their setup failed, or the step that should have sampled their
  // kPreviousToken did. Such a slot fails until its next setup.
  std::span<const SlotFailure> failures = {};
};

// Counts the steps of an engine, from 1.
using StepNumber = uint64_t;

// What the engine was built for and what it got.
struct EngineInfo {
  std::string model_type;  // "llama", "qwen2" …
  int32_t vocab_size;
  int32_t max_batch_size;    // slots
  int32_t max_num_tokens;    // tokens in one step
  int32_t max_steps_in_flight = 1;  // launched and not finished
  int64_t max_tokens_in_flight() const { return int64_t{max_num_tokens} * max_steps_in_flight; }
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
//
// A slot with num_candidates is never told which of them its beam takes: it counts the tokens of its slices at
// positions past the prompt and what it has generated as generated, too. kPreviousToken is not for such slots.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const EngineInfo& info() const = 0;

  // Starts a step and returns before it is done; what the input points at must live until then. Steps run in the order
  // of their launches, at most info().max_steps_in_flight at a time. Throws Error, and nothing of the step takes
  // effect: kInvalidArgument names what contradicts itself or the engine's limits.
  virtual StepNumber launch(const StepInput& input) = 0;

  // Waits for the oldest step in flight. Throws Error if it failed: then its slices are void, but its copies and setups
  // have taken effect, and other slots can go on.
  virtual StepOutput finish() = 0;

  // Whether the copies of this step, and of all before it, are done. Never waits. Steps run beside copies, except that
  // a step waits for those that touch blocks of its slices.
  virtual bool is_copied(StepNumber step) = 0;
};

// What may differ between two servers of one engine directory.
struct EngineOptions {
  int32_t num_threads = 0;  // CPU engine; 0 → the CPUs that this process may use
  int32_t max_steps_in_flight = 0;  // 0 → the engine's own choice
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
