#include <algorithm>
#include <bit>

#include "combine_attention.h"
#include "context_attention.h"
#include "engine/tensorrt/operations/typed_operation.h"
#include "generation_attention.h"
#include "rotate_and_attend.h"
#include "rotate_and_cache.h"

namespace inflight::gpu {
namespace {

using kernels::Status;

class AttentionOperation : public TypedOperation<AttentionOperation, AttentionConstants> {
 public:
  static constexpr std::string_view kType = "attention";
  using TypedOperation::TypedOperation;

  std::vector<ElementType> input_types() const override {
    std::vector<ElementType> types(kNumAttentionInputs, ElementType::kInt32);
    types[kQkv] = c().type;
    types[kKeyCache] = types[kValueCache] = c().cache_type;
    types[kCosSin] = ElementType::kFloat32;
    return types;
  }
  OutputForm output() const override { return {kQkv, c().query_heads * c().head_size, c().type}; }

  size_t workspace_bytes(std::span<const Shape> inputs) const override {
    return query_bytes(inputs[kQkv].rows()) + partial_bytes() + workspace_part(partial_bytes() / c().head_size);
  }

  Status load() override {
    Status status = kernels::load(rotation());
    if (status.ok()) status = kernels::load(generation());
    if (status.ok()) status = kernels::load(turning());
    for (const int32_t splits : {2, kMaxSplits}) {
      if (!status.ok()) return status;
      kernels::CombineAttention combination = this->combination();
      combination.splits = splits;
      status = kernels::load(combination);
    }
    for (const int32_t longest : {1, 1024}) {
      if (!status.ok()) return status;
      kernels::ContextAttention context = this->context();
      context.longest_chunk = longest;
      status = kernels::load(context);
    }
    return status;
  }

  Status enqueue(std::span<const Input> inputs, void* output, void* workspace, cudaStream_t stream) override {
    const Step step = describe(inputs);
    char* const queries = static_cast<char*>(workspace);
    char* const partials = queries + query_bytes(step.tokens);
    const bool turns_inside = step.generating * c().kv_heads <= kMaxHeadsTurnedInside;
    const int32_t first = turns_inside ? step.generating : 0;  // the first token to turn before attention
    Status status;
    if (first < step.tokens) status = rotate(inputs, step, first, queries, stream);
    if (status.ok() && step.generating > 0) {
      status = turns_inside ? attend_turning(inputs, step, output, partials, stream)
                            : attend_generation(inputs, step, queries, output, partials, stream);
    }
    if (status.ok() && step.chunks > 0) status = attend_context(inputs, step, queries, output, stream);
    return status;
  }

 private:
  static constexpr int32_t kMaxSplits = 32;
  // Up to so many KV heads of all sequences, rotate_and_attend beats two kernels; of more, each program waits for too
  // much before its first keys.
  static constexpr int32_t kMaxHeadsTurnedInside = 132;
  static constexpr int32_t kMaxSplitRows = 264;  // see choose_splits: sequences * kv_heads * splits is no larger

  struct Step {
    int32_t tokens, sequences, generating, chunks, longest_chunk, table_stride;
  };

  Step describe(std::span<const Input> inputs) const {
    Step step{};
    step.tokens = static_cast<int32_t>(inputs[kQkv].shape.rows());
    step.sequences = static_cast<int32_t>(inputs[kLengths].shape.rows());
    step.chunks = static_cast<int32_t>(inputs[kFirstQueries].shape.rows()) - 1;
    step.generating = step.sequences - step.chunks;
    step.longest_chunk = static_cast<int32_t>(inputs[kLongestChunk].shape.rows());
    step.table_stride = static_cast<int32_t>(inputs[kBlockTable].shape.columns());
    return step;
  }

  size_t row_bytes() const { return size_t{2} * c().query_heads * c().head_size; }
  size_t query_bytes(int64_t tokens) const { return workspace_part(tokens * row_bytes()); }
  size_t partial_bytes() const {
    return workspace_part(size_t{4} * kMaxSplitRows * (c().query_heads / c().kv_heads) * c().head_size);
  }
  int32_t block_shift() const { return std::countr_zero(static_cast<uint32_t>(c().tokens_per_block)); }
  int32_t token_stride() const { return c().kv_heads * c().head_size; }

  // What generation and context attention have in common.
  template <class Arguments, class ScoresOfArguments>
  void fill(Arguments& arguments) const {
    using S = ScoresOfArguments;
    constexpr S kScores[] = {S::kPlain, S::kSoftCap, S::kAlibi};
    arguments.dtype = data_type(c().type);
    arguments.cache = data_type(c().cache_type);
    arguments.head_size = c().head_size;
    arguments.scores = kScores[static_cast<int>(c().scores)];
    arguments.block_stride = int64_t{token_stride()} * c().tokens_per_block;
    arguments.token_stride = token_stride();
    arguments.head_stride = c().head_size;
    arguments.block_shift = block_shift();
    arguments.query_heads = c().query_heads;
    arguments.kv_heads = c().kv_heads;
    arguments.window = c().window;
    arguments.sinks = c().sinks;
    arguments.scale = c().scale * c().key_scale;
    arguments.soft_cap = c().soft_cap;
    arguments.value_scale = c().value_scale;
  }

  kernels::RotateAndCache rotation() const {
    kernels::RotateAndCache rotation{};
    rotation.dtype = data_type(c().type);
    rotation.cache = data_type(c().cache_type);
    rotation.head_size = c().head_size;
    rotation.interleaved = c().is_interleaved != 0;
    rotation.normalize = false;
    rotation.block_stride = int64_t{token_stride()} * c().tokens_per_block;
    rotation.token_stride = token_stride();
    rotation.head_stride = c().head_size;
    rotation.block_shift = block_shift();
    rotation.query_heads = c().query_heads;
    rotation.kv_heads = c().kv_heads;
    rotation.rotary_size = c().rotary_size;
    rotation.key_scale = c().key_scale;
    rotation.value_scale = c().value_scale;
    rotation.programmatic_launch = true;
    return rotation;
  }
  kernels::GenerationAttention generation() const {
    kernels::GenerationAttention generation{};
    fill<kernels::GenerationAttention, kernels::GenerationAttentionScores>(generation);
    generation.splits = 1;
    generation.programmatic_launch = true;
    return generation;
  }
  kernels::RotateAndAttend turning() const {
    kernels::RotateAndAttend turning{};
    fill<kernels::RotateAndAttend, kernels::RotateAndAttendScores>(turning);
    turning.interleaved = c().is_interleaved != 0;
    turning.rotary_size = c().rotary_size;
    turning.key_scale = c().key_scale;
    turning.splits = 1;
    turning.programmatic_launch = true;
    return turning;
  }
  kernels::CombineAttention combination() const {
    kernels::CombineAttention combination{};
    combination.dtype = data_type(c().type);
    combination.head_size = c().head_size;
    combination.programmatic_launch = true;
    return combination;
  }
  kernels::ContextAttention context() const {
    kernels::ContextAttention context{};
    fill<kernels::ContextAttention, kernels::ContextAttentionScores>(context);
    return context;
  }

  // More splits than keys are worth cost more than they gain: a second stage, at least. What the block table has room
  // for says how long sequences are.
  int32_t useful_splits(const Step& step) const {
    const int32_t keys = step.table_stride * c().tokens_per_block;
    return std::max(1, keys / (step.generating * c().kv_heads <= 32 ? 128 : 512));
  }

  // Turns the tokens from `first` on, and writes their keys and values.
  Status rotate(std::span<const Input> inputs, const Step& step, int32_t first, char* queries,
                cudaStream_t stream) const {
    kernels::RotateAndCache rotation = this->rotation();
    rotation.queries = queries + first * row_bytes();
    rotation.key_cache = const_cast<void*>(inputs[kKeyCache].data);
    rotation.value_cache = const_cast<void*>(inputs[kValueCache].data);
    rotation.qkv = static_cast<const char*>(inputs[kQkv].data) + size_t{2} * first * inputs[kQkv].shape.columns();
    rotation.cos_sin = static_cast<const float*>(inputs[kCosSin].data);
    rotation.positions = static_cast<const int32_t*>(inputs[kPositions].data) + first;
    rotation.sequences = static_cast<const int32_t*>(inputs[kSequences].data) + first;
    rotation.block_table = static_cast<const int32_t*>(inputs[kBlockTable].data);
    rotation.table_stride = step.table_stride;
    rotation.tokens = step.tokens - first;
    return launch(rotation, stream);
  }

  Status attend_turning(std::span<const Input> inputs, const Step& step, void* output, char* partials,
                        cudaStream_t stream) const {
    kernels::RotateAndAttend turning = this->turning();
    turning.qkv = inputs[kQkv].data;
    turning.cos_sin = static_cast<const float*>(inputs[kCosSin].data);
    return attend_and_combine(turning, inputs, step, output, partials, stream);
  }

  Status attend_generation(std::span<const Input> inputs, const Step& step, const void* queries, void* output,
                           char* partials, cudaStream_t stream) const {
    kernels::GenerationAttention generation = this->generation();
    generation.queries = queries;
    return attend_and_combine(generation, inputs, step, output, partials, stream);
  }

  template <class Arguments>
  Status attend_and_combine(Arguments& arguments, std::span<const Input> inputs, const Step& step, void* output,
                            char* partials, cudaStream_t stream) const {
    arguments.output = output;
    arguments.partial_output = reinterpret_cast<float*>(partials);
    arguments.partial_sum = reinterpret_cast<float*>(partials + partial_bytes());
    arguments.key_cache = const_cast<void*>(inputs[kKeyCache].data);
    arguments.value_cache = const_cast<void*>(inputs[kValueCache].data);
    arguments.block_table = static_cast<const int32_t*>(inputs[kBlockTable].data);
    arguments.lengths = static_cast<const int32_t*>(inputs[kLengths].data);
    arguments.table_stride = step.table_stride;
    arguments.sequences = step.generating;
    arguments.splits = std::min(choose_splits(arguments), useful_splits(step));
    Status status = launch(arguments, stream);
    if (!status.ok() || arguments.splits == 1) return status;
    kernels::CombineAttention combination = this->combination();
    combination.output = output;
    combination.partial_output = arguments.partial_output;
    combination.partial_sum = arguments.partial_sum;
    combination.rows = step.generating * c().query_heads;
    combination.splits = arguments.splits;
    return launch(combination, stream);
  }

  Status attend_context(std::span<const Input> inputs, const Step& step, const char* queries, void* output,
                        cudaStream_t stream) const {
    kernels::ContextAttention context = this->context();
    const size_t before = step.generating * row_bytes();  // a token each
    const auto* const table = static_cast<const int32_t*>(inputs[kBlockTable].data);
    context.output = static_cast<char*>(output) + before;
    context.queries = queries + before;
    context.first_query = static_cast<const int32_t*>(inputs[kFirstQueries].data);
    context.key_cache = inputs[kKeyCache].data;
    context.value_cache = inputs[kValueCache].data;
    context.block_table = table + int64_t{step.generating} * step.table_stride;
    context.lengths = static_cast<const int32_t*>(inputs[kLengths].data) + step.generating;
    context.table_stride = step.table_stride;
    context.sequences = step.chunks;
    context.longest_chunk = step.longest_chunk;
    return launch(context, stream);
  }
};

}  // namespace

std::unique_ptr<Operation> make_attention(const AttentionConstants& constants) {
  return std::make_unique<AttentionOperation>(constants);
}

std::unique_ptr<Operation> read_attention(std::span<const std::byte> constants) {
  return AttentionOperation::read(constants);
}

}  // namespace inflight::gpu
