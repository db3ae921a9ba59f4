#pragma once

#include <xgrammar/compiler.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "batch_manager/guided/guided_vocabulary.h"

namespace inflight {

class CompiledGuide {
 public:
  xgrammar::CompiledGrammar grammar;
  std::shared_ptr<const GuidedVocabulary> vocabulary;
  // [(vocab_size + 31) / 32], as in SequenceSlice::mask: the tokens that a text may begin with.
  std::vector<uint32_t> first_tokens = {};
};

}  // namespace inflight
