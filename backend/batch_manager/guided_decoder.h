#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <vector>

#include "batch_manager/request.h"
#include "engine/engine.h"

namespace inflight {

// A guide compiled for one tokenizer, shared by all sequences that follow it.
class CompiledGuide;

// Keeps the text of sequences to their guides: which tokens each may sample next.
//
// The text follows its guide from the first generated token to the last; then only an end id is allowed. Special
// tokens are never part of it. One thread (the batch manager's loop) calls it, the engine's threads call mask().
class GuidedDecoder final : public TokenMasks {
 public:
  // `tokenizer_dir` holds tokenizer.json; its vocabulary may be smaller than the model's vocab_size, and tokens that
  // only the model has are never allowed. end_ids: what may follow a complete text. Slots are 0 .. num_slots - 1.
  // Throws Error naming the file for a tokenizer that is missing, malformed, or larger than vocab_size.
  GuidedDecoder(const std::filesystem::path& tokenizer_dir, int32_t vocab_size, std::vector<int32_t> end_ids,
                int32_t num_slots);
  ~GuidedDecoder() override;  // futures that are not ready yet throw Error(kUnavailable); no slot's mask may be awaited

  // Compiled on a thread of its own, one after another; cached by type and guide. The future throws
  // Error(kInvalidArgument) naming guided_decoding, its type and what is wrong. `on_done` (may be empty) is called
  // from that thread, or from this one for a cached guide, when the future is ready; it must not throw.
  std::shared_future<std::shared_ptr<const CompiledGuide>> compile(const GuidedDecoding& guide,
                                                                   std::function<void()> on_done);

  // Gives a slot to a sequence that follows `guide` and has generated these tokens already. The first mask is being
  // made when it returns. Throws Error(kInternal) if `generated` does not follow the guide.
  void start(int32_t slot, std::shared_ptr<const CompiledGuide> guide, std::span<const int32_t> generated);

  // The slot's sequence sampled `token`, which its mask allowed. Returns at once; a worker thread makes the next mask.
  // Not while a step that holds the slot is in flight.
  void accept(int32_t slot, int32_t token);

  // Gives the slot back.
  void finish(int32_t slot);

  // Whether the slot's text is complete: only an end id may follow, or has followed. May wait for the last accept().
  bool is_terminated(int32_t slot) const;

  // Waits until the slot's next mask is made. A token that was accepted against the mask throws Error(kInternal) here.
  std::span<const uint32_t> mask(int32_t slot) override;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace inflight
