#pragma once

#include <xgrammar/compiler.h>

#include <memory>

#include "batch_manager/guided/guided_vocabulary.h"

namespace inflight {

class CompiledGuide {
 public:
  xgrammar::CompiledGrammar grammar;
  std::shared_ptr<const GuidedVocabulary> vocabulary;
  bool is_json;
};

}  // namespace inflight
