#include "engine/step_message.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>

#include "common/error.h"

namespace inflight {
namespace {

constexpr uint32_t kMagic = 0x31504554;  // "TEP1"

class Writer {
 public:
  explicit Writer(std::vector<std::byte>& bytes) : bytes_(bytes) {}

  template <class T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    const auto* const begin = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), begin, begin + sizeof value);
  }
  template <class T>
  void numbers(std::span<const T> values) {
    number(static_cast<uint64_t>(values.size()));
    const auto* const begin = reinterpret_cast<const std::byte*>(values.data());
    bytes_.insert(bytes_.end(), begin, begin + values.size_bytes());
  }

 private:
  std::vector<std::byte>& bytes_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  T number(const char* what) {
    T value;
    std::memcpy(&value, take(what, 1, sizeof value), sizeof value);
    return value;
  }
  bool flag(const char* what) {
    const auto value = number<uint8_t>(what);
    if (value > 1) fail(what, " is ", int{value});
    return value == 1;
  }
  // How many parts follow, each of at least `size` bytes.
  size_t count(const char* what, size_t size) {
    const auto count = number<uint64_t>(what);
    if (count > bytes_.size() / size) fail("there are ", count, " of ", what, ", and ", bytes_.size(), " bytes left");
    return count;
  }
  // Appends to `values`. Returns where they begin, and how many there are.
  template <class T>
  std::pair<size_t, size_t> append(const char* what, std::vector<T>& values) {
    const size_t size = count(what, sizeof(T)), begin = values.size();
    values.resize(begin + size);
    if (size > 0) std::memcpy(values.data() + begin, take(what, size, sizeof(T)), size * sizeof(T));
    return {begin, size};
  }
  void end() const {
    if (!bytes_.empty()) fail(bytes_.size(), " bytes follow it");
  }
  template <class... What>
  [[noreturn]] static void fail(const What&... what) {
    throw_error(ErrorCode::kInvalidArgument, "a step's message is damaged: ", what...);
  }

 private:
  const std::byte* take(const char* what, size_t count, size_t size) {
    if (count * size > bytes_.size()) fail("it ends in ", what);
    const std::byte* const begin = bytes_.data();
    bytes_ = bytes_.subspan(count * size);
    return begin;
  }

  std::span<const std::byte> bytes_;
};

// Calls visit(name, field) for each number of a SamplingConfig.
template <class Config, class Visit>
void for_each_number(Config& config, Visit&& visit) {
  visit("top_k", config.top_k);
  visit("top_p", config.top_p);
  visit("min_p", config.min_p);
  visit("temperature", config.temperature);
  visit("random_seed", config.random_seed);
  visit("top_p_decay", config.top_p_decay);
  visit("top_p_min", config.top_p_min);
  visit("top_p_reset_id", config.top_p_reset_id);
  visit("repetition_penalty", config.repetition_penalty);
  visit("presence_penalty", config.presence_penalty);
  visit("frequency_penalty", config.frequency_penalty);
  visit("min_length", config.min_length);
  visit("num_candidates", config.num_candidates);
}

void write(const SamplingConfig& config, Writer& writer) {
  for_each_number(config, [&](const char*, auto value) { writer.number(value); });
  writer.number(static_cast<uint8_t>(config.return_log_probs));
  writer.number(config.num_top_log_probs.value_or(-1));
  writer.numbers<int32_t>(config.end_ids);
  const WordList& bad_words = config.bad_words.list();
  writer.number(static_cast<uint64_t>(bad_words.size()));
  for (size_t i = 0; i < bad_words.size(); ++i) writer.numbers(bad_words[i]);
  writer.number(static_cast<uint8_t>(config.embedding_bias != nullptr));
  if (config.embedding_bias) writer.numbers<float>(*config.embedding_bias);
}

SamplingConfig read_sampling(Reader& reader) {
  SamplingConfig config;
  for_each_number(config, [&](const char* name, auto& value) {
    value = reader.number<std::remove_reference_t<decltype(value)>>(name);
  });
  config.return_log_probs = reader.flag("return_log_probs");
  const auto num_top_log_probs = reader.number<int32_t>("num_top_log_probs");
  if (num_top_log_probs >= 0) config.num_top_log_probs = num_top_log_probs;
  reader.append("end_ids", config.end_ids);
  WordList bad_words;
  for (size_t left = reader.count("bad words", sizeof(uint64_t)); left > 0; --left) {
    std::vector<int32_t> word;
    reader.append("a bad word", word);
    bad_words.add(word);
  }
  config.bad_words = BadWords(bad_words);
  if (reader.flag("embedding_bias")) {
    std::vector<float> bias;
    reader.append("embedding_bias", bias);
    config.embedding_bias = std::make_shared<const std::vector<float>>(std::move(bias));
  }
  return config;
}

void write(const SlotSetup& setup, Writer& writer) {
  writer.number(setup.slot);
  writer.number(setup.parent);
  if (setup.parent >= 0) return writer.number(setup.num_parent_blocks);
  write(setup.sampling, writer);
  writer.numbers(setup.prompt);
  writer.numbers(setup.generated);
}

void write(const SequenceSlice& slice, Writer& writer) {
  writer.number(slice.slot);
  writer.number(slice.past_length);
  writer.number(static_cast<uint8_t>(slice.samples));
  writer.number(slice.num_drafts);
  writer.number(static_cast<uint8_t>(slice.returned_logits));
  writer.numbers(slice.tokens);
  writer.numbers(slice.new_block_ids);
  writer.numbers(slice.mask);
}

template <class T>
std::span<const T> append(std::vector<T>& values, std::span<const T> more) {
  const size_t begin = values.size();
  values.insert(values.end(), more.begin(), more.end());
  return std::span<const T>(values).subspan(begin);
}

}  // namespace

void write_step(const StepInput& input, std::vector<std::byte>& bytes) {
  Writer writer(bytes);
  writer.number(kMagic);
  writer.number(static_cast<uint64_t>(input.copies.size()));
  for (const BlockCopy& copy : input.copies) {
    writer.number(copy.source);
    writer.number(copy.destination);
  }
  writer.number(static_cast<uint64_t>(input.setups.size()));
  for (const SlotSetup& setup : input.setups) write(setup, writer);
  writer.number(static_cast<uint64_t>(input.slices.size()));
  for (const SequenceSlice& slice : input.slices) write(slice, writer);
}

void StepMessage::assign(const StepInput& input) {
  size_t num_numbers = 0, num_words = 0;
  for (const SlotSetup& setup : input.setups) num_numbers += setup.prompt.size() + setup.generated.size();
  for (const SequenceSlice& slice : input.slices) {
    num_numbers += slice.tokens.size() + slice.new_block_ids.size();
    num_words += slice.mask.size();
  }
  numbers_.clear();
  mask_words_.clear();
  numbers_.reserve(num_numbers);  // spans of it stay valid
  mask_words_.reserve(num_words);
  copies_.assign(input.copies.begin(), input.copies.end());
  setups_.assign(input.setups.begin(), input.setups.end());
  slices_.assign(input.slices.begin(), input.slices.end());
  for (SlotSetup& setup : setups_) {
    setup.prompt = append(numbers_, setup.prompt);
    setup.generated = append(numbers_, setup.generated);
  }
  for (SequenceSlice& slice : slices_) {
    slice.tokens = append(numbers_, slice.tokens);
    slice.new_block_ids = append(numbers_, slice.new_block_ids);
    slice.mask = append(mask_words_, slice.mask);
  }
}

void StepMessage::read(std::span<const std::byte> bytes) {
  Reader reader(bytes);
  copies_.clear();
  setups_.clear();
  slices_.clear();
  // What has been counted is in the bytes, so that spans of these stay valid.
  numbers_.clear();
  mask_words_.clear();
  numbers_.reserve(bytes.size() / sizeof(int32_t));
  mask_words_.reserve(bytes.size() / sizeof(uint32_t));
  const auto numbers = [&](const char* what) {
    const auto [begin, size] = reader.append(what, numbers_);
    return std::span<const int32_t>(numbers_).subspan(begin, size);
  };
  if (reader.number<uint32_t>("its head") != kMagic) Reader::fail("it begins as none does");
  for (size_t left = reader.count("copies", sizeof(BlockCopy)); left > 0; --left) {
    const auto source = reader.number<int32_t>("a copy");
    copies_.push_back({source, reader.number<int32_t>("a copy")});
  }
  for (size_t left = reader.count("setups", 3 * sizeof(int32_t)); left > 0; --left) {
    SlotSetup& setup = setups_.emplace_back();
    setup.slot = reader.number<int32_t>("a setup");
    setup.parent = reader.number<int32_t>("a setup");
    if (setup.parent >= 0) {
      setup.num_parent_blocks = reader.number<int32_t>("a fork");
    } else {
      setup.sampling = read_sampling(reader);
      setup.prompt = numbers("a prompt");
      setup.generated = numbers("generated tokens");
    }
  }
  for (size_t left = reader.count("slices", 6 * sizeof(int32_t)); left > 0; --left) {
    SequenceSlice& slice = slices_.emplace_back();
    slice.slot = reader.number<int32_t>("a slice");
    slice.past_length = reader.number<int32_t>("a slice");
    slice.samples = reader.flag("a slice's `samples`");
    slice.num_drafts = reader.number<int32_t>("a slice");
    const auto returned = reader.number<uint8_t>("a slice");
    if (returned > static_cast<uint8_t>(ReturnedLogits::kAll)) Reader::fail("returned_logits is ", int{returned});
    slice.returned_logits = static_cast<ReturnedLogits>(returned);
    slice.tokens = numbers("a slice's tokens");
    slice.new_block_ids = numbers("a slice's blocks");
    const auto [begin, size] = reader.append("a mask", mask_words_);
    slice.mask = std::span<const uint32_t>(mask_words_).subspan(begin, size);
  }
  reader.end();
}

}  // namespace inflight
