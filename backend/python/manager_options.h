#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <filesystem>

#include "batch_manager/batch_manager.h"
#include "engine/engine.h"

namespace inflight::python {

struct ManagerOptions {
  EngineOptions engine;
  BatchManagerOptions batch_manager;
  std::filesystem::path draft_engine_dir;  // of batch_manager.draft_model, which has yet to be loaded; empty: none
  int32_t history = 1000;  // steps, and ended requests, whose statistics are kept
};

// From keyword arguments: the fields of EngineOptions, BatchManagerOptions and PromptLookupOptions under their names in
// C++ (prompt_lookup_max_draft_tokens, prompt_lookup_max_ngram), draft_engine_dir and num_draft_tokens of
// DraftModelOptions, and `history`. Throws Error (kInvalidArgument) naming the argument.
ManagerOptions parse_manager_options(const nanobind::kwargs& options);

}  // namespace inflight::python
