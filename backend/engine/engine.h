#pragma once

#include <cstdint>
#include <filesystem>
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

// One sequence's share of a step.
struct SequenceSlice {
  int32_t slot;                        // stable index < max_batch_size, keys per-sequence state
  std::span<const int32_t> tokens;     // to process now: a context chunk, or 1 token for generation
  int32_t past_length;                 // tokens already in the KV cache
  std::span<const int32_t> block_ids;  // KV-cache blocks that hold past_length + tokens.size() tokens
  bool samples = true;                 // false while context chunks remain
  bool returns_logits = false;         // StepOutput::logits gets a row for each of `tokens`
};

// One ragged step over at most max_batch_size slices, each of another slot, and max_num_tokens tokens.
struct StepInput {
  std::span<const SequenceSlice> sequences;
};

struct SampledToken {
  int32_t slot;
  int32_t token;
  float log_prob;  // 0 unless the slot's SamplingConfig::return_log_probs
};

struct StepOutput {
  std::vector<SampledToken> tokens;  // one for each slice with samples, in the order of the input
  std::vector<float> logits;         // [tokens of slices with returns_logits, vocab_size], in order
};

using StepHandle = uint64_t;

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
  int32_t tokens_per_block;  // a power of two
  int32_t num_blocks;        // KV-cache blocks that the engine holds
  int64_t kv_bytes_per_block;
  std::vector<int32_t> end_ids;  // of the model's generation config
  int32_t pad_id;
};

// Runs ragged forward passes and samples. One thread (the batch manager's loop) calls it.
// A step that fails throws Error from wait(); the engine stays usable for other slots.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const EngineInfo& info() const = 0;

  // Gives a slot to a new sequence: how it samples, and its prompt (penalties look at it, dynamic RoPE
  // scaling at its length). Not while a step that holds the slot is in flight.
  virtual void configure(int32_t slot, const SamplingConfig& config, std::span<const int32_t> prompt) = 0;

  // Starts a step and returns before it is done; everything the input's spans point at must live until
  // wait() returns. Steps run in the order of submission.
  virtual StepHandle submit(const StepInput& input) = 0;
  virtual StepOutput wait(StepHandle step) = 0;

  // Copies whole KV-cache blocks, before the next submitted step.
  virtual void copy_blocks(std::span<const BlockCopy> copies) = 0;
};

// What may differ between two servers of one engine directory.
struct EngineOptions {
  int32_t num_threads = 0;  // CPU engine; 0 → the CPUs that this process may use
  std::optional<int64_t> max_tokens_in_kv_cache = std::nullopt;  // overrides build_config.kv_cache_bytes
};

// Loads the engine in `directory` (config.json + rank0.*) for the device that its config names.
// Throws Error naming the file and the field for anything that does not fit together.
std::unique_ptr<Engine> load_engine(const std::filesystem::path& directory, const EngineOptions& options = {});

}  // namespace inflight
