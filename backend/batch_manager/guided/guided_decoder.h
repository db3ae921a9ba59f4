#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "batch_manager/guided/requested_guide.h"
#include "batch_manager/request.h"
#include "engine/engine.h"

namespace inflight {

// A guide compiled for one tokenizer, shared by all sequences that follow it.
class CompiledGuide;

// Keeps the text of sequences to their guides: which tokens each may sample next.
//
// The text follows its guide from the first generated token to the last; then only an end id is allowed. Special
// tokens are never part of it. Masks are made by worker threads. compile() may be called from any thread, everything
// else from one (the batch manager's loop).
class GuidedDecoder {
 public:
  // `tokenizer_dir` holds tokenizer.json; its vocabulary may be smaller than the model's vocab_size, and tokens that
  // only the model has are never allowed. end_ids: what may follow a complete text. Slots are 0 .. num_slots - 1.
  // on_compiled (may be empty) is called from a compiling thread when a guide is ready; it must not throw.
  // Throws Error naming the file for a tokenizer that is missing, malformed, or larger than vocab_size.
  GuidedDecoder(const std::filesystem::path& tokenizer_dir, int32_t vocab_size, std::vector<int32_t> end_ids,
                int32_t num_slots, std::function<void()> on_compiled = {});
  // Stops compiles that run; guides that are not ready fail with Error(kUnavailable). No slot may be waited for.
  ~GuidedDecoder();

  // Compiled on one of several threads, for as long as somebody holds what this returns; those used last are kept.
  // Throws Error(kUnavailable) when too many guides wait.
  std::shared_ptr<const RequestedGuide> compile(const GuidedDecoding& guide);

  // Gives a slot to a sequence that follows `guide` and has generated these tokens already. Its text may end with one
  // of `end_ids`, each in [0, vocab_size); empty: those of the constructor. Returns at once, as all but
  // is_terminated(), may_end() and mask() do.
  void start(int32_t slot, std::shared_ptr<const CompiledGuide> guide, std::span<const int32_t> generated,
             std::span<const int32_t> end_ids = {});

  // The slot's sequence sampled `token`; a worker thread makes the next mask. Not while a step that holds the slot is
  // in flight.
  void accept(int32_t slot, int32_t token);

  // Gives the slot back. For a slot that is not started, nothing happens.
  void finish(int32_t slot);

  // Whether the slot's text is complete: only an end id may follow, or has followed. Waits for the worker.
  // Throws Error if the text cannot go on: kInvalidArgument for a guide that comes to a dead end, kInternal for an
  // accepted token that the mask did not allow. The slot's mask allows only end ids then.
  bool is_terminated(int32_t slot) const;

  // Whether the slot's text may end here: it follows its guide as it is. As is_terminated().
  bool may_end(int32_t slot) const;

  // Whether the slot's mask is there, or comes by `deadline`.
  bool has_mask(int32_t slot, std::chrono::steady_clock::time_point deadline = {});
  // SequenceSlice::mask of the slot, until its next accept(), start() or finish(). Waits for the worker; never throws.
  // Without end ids, the mask of a complete text allows nothing.
  std::span<const uint32_t> mask(int32_t slot) const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace inflight
