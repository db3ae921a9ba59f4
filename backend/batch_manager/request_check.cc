#include "batch_manager/request_check.h"

#include <cmath>
#include <string>

namespace inflight {
namespace {

template <class... Args>
[[noreturn]] void invalid(const Args&... args) {
  throw_error(ErrorCode::kInvalidArgument, args...);
}

void check_tokens(const char* name, const std::vector<int32_t>& tokens, int32_t vocab_size) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab_size) {
      invalid(name, " holds ", tokens[i], " at position ", i, "; token ids of this model are 0 to ", vocab_size - 1);
    }
  }
}

void check_words(const char* name, const std::vector<std::vector<int32_t>>& words, int32_t vocab_size) {
  for (const auto& word : words) {
    if (word.empty()) invalid(name, " holds a word without tokens; leave it out");
    check_tokens(name, word, vocab_size);
  }
}

void check_lengths(const Request& request, const EngineInfo& info, bool enable_chunked_context) {
  const int64_t prompt = request.input_ids.size();
  if (prompt == 0) invalid("input_ids is empty; a request needs at least one token");
  if (request.max_new_tokens <= 0) {
    invalid("request_output_len (max_tokens) is ", request.max_new_tokens, "; it must be at least 1");
  }
  if (prompt >= info.max_seq_len) {
    invalid("input_ids has ", prompt, " tokens; this engine takes at most ", info.max_seq_len - 1,
            ": shorten the prompt or rebuild with a larger --max-seq-len");
  }
  const int64_t total = prompt + request.max_new_tokens;
  if (total > info.max_seq_len) {
    invalid("input_ids has ", prompt, " tokens and request_output_len (max_tokens) is ", request.max_new_tokens, ": ",
            total, " together, and this engine takes at most ", info.max_seq_len, ": ask for at most ",
            info.max_seq_len - prompt, " or rebuild with a larger --max-seq-len");
  }
  if (!enable_chunked_context && prompt > info.max_num_tokens) {
    invalid("input_ids has ", prompt, " tokens, more than a step's max_num_tokens (", info.max_num_tokens,
            "): turn on enable_chunked_context or rebuild with a larger --max-num-tokens");
  }
  const int64_t capacity = static_cast<int64_t>(info.num_blocks) * info.tokens_per_block;
  if (total - 1 > capacity) {
    invalid("input_ids has ", prompt, " tokens and request_output_len (max_tokens) is ", request.max_new_tokens,
            ": more than the KV cache's ", capacity,
            " tokens: ask for less or rebuild with a larger --kv-cache-memory");
  }
}

void check_range(const char* name, double value, bool ok, const char* allowed) {
  if (!ok) invalid(name, " is ", value, "; it must be ", allowed);
}

void check_sampling(const SamplingConfig& sampling, const EngineInfo& info) {
  // Written so that NaN fails every check.
  const double temperature = sampling.temperature;
  check_range("temperature", temperature, temperature >= 0 && std::isfinite(temperature), "a number >= 0 (0: greedy)");
  check_range("top_p", sampling.top_p, sampling.top_p >= 0 && sampling.top_p <= 1, "in 0 to 1");
  check_range("repetition_penalty", sampling.repetition_penalty,
              sampling.repetition_penalty > 0 && std::isfinite(sampling.repetition_penalty), "a number > 0");
  check_range("presence_penalty", sampling.presence_penalty, std::isfinite(sampling.presence_penalty), "a number");
  check_range("frequency_penalty", sampling.frequency_penalty, std::isfinite(sampling.frequency_penalty), "a number");
  if (sampling.top_k < 0) invalid("top_k is ", sampling.top_k, "; it must be at least 0 (0: all tokens)");
  if (sampling.min_length < 0) invalid("min_length is ", sampling.min_length, "; it must be at least 0");
  for (const int32_t id : sampling.end_ids) {
    if (id < -1 || id >= info.vocab_size) {
      invalid("end_id is ", id, "; it must be -1 (none) or a token id, 0 to ", info.vocab_size - 1);
    }
  }
  check_words("bad_words", sampling.bad_words, info.vocab_size);
}

}  // namespace

void check_request(const Request& request, const EngineInfo& info, bool enable_chunked_context) {
  check_lengths(request, info, enable_chunked_context);
  check_tokens("input_ids", request.input_ids, info.vocab_size);
  check_sampling(request.sampling, info);
  check_words("stop_words", request.stop_words, info.vocab_size);
}

}  // namespace inflight
