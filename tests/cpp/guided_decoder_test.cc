#include "batch_manager/guided/guided_decoder.h"

#include <atomic>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "check.h"

using namespace inflight;
using nlohmann::json;
using Type = GuidedDecoding::Type;

namespace {

// A tokenizer of WordLevel tokens that spell themselves.
const std::vector<std::string> kTokens = {"<end>", "<user>", "a", "b", "ab", "c", "\"", "{", "}", "1", ":", "<think>"};
constexpr int32_t kEnd = 0;
constexpr int32_t kUser = 1;
constexpr int32_t kOtherEnd = 13;
constexpr int32_t kVocabSize = 40;  // more than the tokenizer has, in two words

class Directory {
 public:
  Directory() : path_((std::filesystem::temp_directory_path() / "guided_decoder_test.XXXXXX").string()) {
    CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  void write_tokenizer(const std::string& text) const { std::ofstream(path_ + "/tokenizer.json") << text; }

 private:
  std::string path_;
};

json tokenizer() {
  json vocabulary;
  for (size_t id = 0; id < kTokens.size(); ++id) vocabulary[kTokens[id]] = id;
  return {{"model", {{"type", "WordLevel"}, {"vocab", vocabulary}}},
          {"decoder", {{"type", "Fuse"}}},
          {"added_tokens",
           {{{"id", kEnd}, {"content", "<end>"}, {"special", true}},
            {{"id", kUser}, {"content", "<user>"}, {"special", true}},
            {{"id", 11}, {"content", "<think>"}, {"special", false}}}}};
}

struct Fixture {
  explicit Fixture(int32_t num_slots = 1, std::function<void()> on_compiled = {}) {
    directory.write_tokenizer(tokenizer().dump());
    decoder.emplace(directory.path(), kVocabSize, std::vector<int32_t>{kEnd}, num_slots, std::move(on_compiled));
  }

  std::shared_ptr<const CompiledGuide> compile(Type type, const std::string& guide) {
    return decoder->compile({type, guide})->get();
  }

  void start(Type type, const std::string& guide, const std::vector<int32_t>& generated = {},
             const std::vector<int32_t>& end_ids = {}, int32_t slot = 0) {
    decoder->start(slot, compile(type, guide), generated, end_ids);
  }

  std::set<std::string> allowed(int32_t slot = 0) {
    std::set<std::string> tokens;
    const auto mask = decoder->mask(slot);
    CHECK_EQ(mask.size(), 2u);
    for (int32_t token = 0; token < 64; ++token) {
      if (mask[token / 32] >> token % 32 & 1) {
        tokens.insert(token < static_cast<int32_t>(kTokens.size()) ? kTokens[token] : std::to_string(token));
      }
    }
    return tokens;
  }

  void accept(const std::string& token, int32_t slot = 0) {
    decoder->accept(slot, static_cast<int32_t>(std::ranges::find(kTokens, token) - kTokens.begin()));
  }

  Directory directory;
  std::optional<GuidedDecoder> decoder;
};

using Tokens = std::set<std::string>;

TEST(only_tokens_that_continue_the_text_are_allowed) {
  Fixture f;
  f.start(Type::kRegex, "a(b|c)1?");
  CHECK((f.allowed() == Tokens{"a", "ab"}));
  f.accept("a");
  CHECK((f.allowed() == Tokens{"b", "c"}));
  CHECK(!f.decoder->is_terminated(0));
}

TEST(an_end_id_is_allowed_once_the_text_may_end) {
  Fixture f;
  f.start(Type::kRegex, "ab1?");
  CHECK((f.allowed() == Tokens{"a", "ab"}));
  f.accept("ab");
  CHECK((f.allowed() == Tokens{"1", "<end>"}));
  CHECK(!f.decoder->is_terminated(0));
  f.accept("<end>");
  CHECK(f.decoder->is_terminated(0));
}

TEST(only_an_end_id_is_allowed_after_a_complete_text) {
  Fixture f;
  f.start(Type::kChoice, R"(["ab", "b"])");
  f.accept("ab");
  CHECK((f.allowed() == Tokens{"<end>"}));
  CHECK(f.decoder->is_terminated(0));
}

TEST(special_tokens_and_those_that_only_the_model_has_are_no_text) {
  Fixture f;
  f.start(Type::kGrammar, "root ::= [^z]*");
  CHECK((f.allowed() == Tokens{"<end>", "a", "b", "ab", "c", "\"", "{", "}", "1", ":", "<think>"}));
  CHECK_ERROR(f.compile(Type::kChoice, R"(["<user>"])"), ErrorCode::kInvalidArgument, "no text");
}

TEST(a_request_may_have_end_ids_of_its_own) {
  Fixture f;
  f.start(Type::kRegex, "a*", {}, {kOtherEnd});
  CHECK((f.allowed() == Tokens{"a", "13"}));
  f.decoder->accept(0, kOtherEnd);
  CHECK(f.decoder->is_terminated(0));
  f.start(Type::kRegex, "ca*", {}, {2});  // an end id that would be text elsewhere
  CHECK((f.allowed() == Tokens{"c"}));
  f.accept("c");
  CHECK((f.allowed() == Tokens{"a"}));
}

TEST(a_text_may_end_only_where_its_guide_is_complete) {
  Fixture f;
  f.start(Type::kRegex, "ab1?");
  CHECK(!f.decoder->may_end(0));
  f.accept("ab");
  CHECK(f.decoder->may_end(0));
  f.accept("1");
  CHECK(f.decoder->may_end(0));
}

TEST(a_resumed_text_goes_on_where_it_was) {
  Fixture f;
  f.start(Type::kRegex, "abc1", {4, 5});
  CHECK((f.allowed() == Tokens{"1"}));
}

TEST(slots_know_nothing_of_each_other) {
  Fixture f(3);
  f.start(Type::kRegex, "ab", {}, {}, 0);
  f.start(Type::kRegex, "c+", {}, {}, 2);
  f.accept("a", 0);
  CHECK((f.allowed(2) == Tokens{"c"}));
  CHECK((f.allowed(0) == Tokens{"b"}));
  f.decoder->finish(0);
  f.accept("c", 2);
  f.start(Type::kRegex, "1", {}, {}, 0);
  CHECK((f.allowed(2) == Tokens{"c", "<end>"}));
  CHECK((f.allowed(0) == Tokens{"1"}));
}

TEST(a_guide_without_texts_is_refused_and_one_with_a_dead_end_fails_there) {
  Fixture f;
  CHECK_ERROR(f.compile(Type::kRegex, "z"), ErrorCode::kInvalidArgument, "no text of the model's tokens follows it");
  CHECK_ERROR(f.compile(Type::kGrammar, "root ::= root \"a\""), ErrorCode::kInvalidArgument, "no text");
  f.start(Type::kRegex, "az");
  f.accept("a");
  CHECK((f.allowed() == Tokens{"<end>"}));
  CHECK_ERROR(f.decoder->is_terminated(0), ErrorCode::kInvalidArgument, "no token continues the text");
}

TEST(a_token_that_the_mask_did_not_allow_is_an_error_of_this_text_only) {
  Fixture f;
  f.start(Type::kRegex, "ab");
  f.accept("c");
  CHECK((f.allowed() == Tokens{"<end>"}));
  CHECK_ERROR(f.decoder->is_terminated(0), ErrorCode::kInternal, "token 5 does not follow the guide");
  f.start(Type::kRegex, "ab");
  CHECK((f.allowed() == Tokens{"a", "ab"}));
}

TEST(errors_name_the_option_its_type_and_what_is_wrong) {
  Fixture f;
  const auto refused = [&](Type type, const std::string& guide, const std::string& message) {
    CHECK_ERROR(f.compile(type, guide), ErrorCode::kInvalidArgument, message);
  };
  refused(Type::kJson, "{}", "guided_decoding: json: takes no guide");
  refused(Type::kJsonSchema, "{\"type\":", "guided_decoding: json_schema: [json.exception.parse_error");
  refused(Type::kJsonSchema, "[]", "json_schema: the guide must be a JSON object");
  refused(Type::kJsonSchema, R"({"type": "text"})", "json_schema: #/type has \"text\", which is no type");
  refused(Type::kJsonSchema, R"({"type": "string", "pattern": "("})",
          "#/pattern \"(\": at character 2: a group is not closed");
  refused(Type::kJsonSchema, R"({"anyOf": []})", "#/anyOf must be a list of one or more schemas");
  refused(Type::kRegex, "(a", "regex: at character 3: a group is not closed");
  refused(Type::kRegex, "a$b", "'$' is supported where the expression ends only");
  refused(Type::kRegex, "\xff", "the expression is not UTF-8");
  refused(Type::kRegex, std::string(200'000, 'a'), "the guide has 200000 bytes; it can have at most 131072");
  refused(Type::kGrammar, "start ::= \"a\"", "grammar: EBNF parser error at line 1, column 1: The root rule");
  refused(Type::kChoice, "{}", "choice: the guide must be a JSON list of one or more strings");
  refused(Type::kChoice, R"(["a", 1])", "choice: the guide must be a JSON list of one or more strings");
  refused(Type::kChoice, R"(["a\u0000"])", "choice: the guide holds the character U+0000");
}

// Holds the threads that have compiled a guide until it is opened.
class Gate {
 public:
  std::function<void()> hold() {
    return [this] { is_open_.wait(false); };
  }
  void open() {
    is_open_ = true;
    is_open_.notify_all();
  }

 private:
  std::atomic<bool> is_open_ = false;
};

constexpr int kMoreThanThreads = 10;
const std::string kBeyondBudget(120'000, 'a');

GuidedDecoding large_guide(int number) {
  return {Type::kChoice, "[\"a\"" + std::string(5000, ' ') + ", \"b" + std::to_string(number) + "\", \"a\"]"};
}

TEST(a_guide_is_compiled_once) {
  std::atomic<int> compiled = 0;
  Fixture f(1, [&] { ++compiled; });
  const auto first = f.decoder->compile({Type::kRegex, "ab"});
  const auto second = f.decoder->compile({Type::kRegex, "ab"});
  CHECK(first->get() == second->get());
  CHECK(first->get() == f.compile(Type::kRegex, "ab"));
  while (compiled == 0) std::this_thread::yield();
  CHECK_EQ(compiled.load(), 1);
  for (int i = 0; i < 100; ++i) f.compile(Type::kRegex, "a{" + std::to_string(i) + "}");
  CHECK(first->get() != f.compile(Type::kRegex, "ab"));  // forgotten by then
}

TEST(guides_that_nobody_holds_any_more_are_not_compiled) {
  Gate gate;
  std::atomic<int> compiled = 0;
  Fixture f(1, [&, hold = gate.hold()] {
    ++compiled;
    hold();
  });
  std::vector<std::shared_ptr<const RequestedGuide>> held;
  for (int i = 0; i < kMoreThanThreads; ++i) held.push_back(f.decoder->compile(large_guide(i)));
  for (int i = 0; i < 1000; ++i) f.decoder->compile(large_guide(kMoreThanThreads + i));
  gate.open();
  f.decoder->compile(large_guide(-1))->get();
  while (compiled <= kMoreThanThreads) std::this_thread::yield();
  CHECK_EQ(compiled.load(), kMoreThanThreads + 1);
}

TEST(small_guides_do_not_wait_for_large_ones) {
  Gate gate;
  Fixture f(1, gate.hold());
  std::vector<std::shared_ptr<const RequestedGuide>> large;
  for (int i = 0; i < kMoreThanThreads; ++i) large.push_back(f.decoder->compile(large_guide(i)));
  f.compile(Type::kRegex, "[ab]{4}");
  CHECK(!large.back()->is_ready());
  gate.open();
}

TEST(more_guides_than_may_wait_are_unavailable) {
  Gate gate;
  Fixture f(1, gate.hold());
  std::vector<std::shared_ptr<const RequestedGuide>> waiting;
  CHECK_ERROR(for (int i = 0; i < 100; ++i) waiting.push_back(f.decoder->compile(large_guide(i))),
              ErrorCode::kUnavailable, "32 large guides wait to be compiled; try again later");
  f.compile(Type::kRegex, "[ab]{4}");
  CHECK_ERROR(for (int i = 0; i < 100; ++i)
                  waiting.push_back(f.decoder->compile({Type::kRegex, "a{" + std::to_string(i) + "}"})),
              ErrorCode::kUnavailable, "64 guides wait to be compiled; try again later");
  waiting.clear();
  waiting.push_back(f.decoder->compile(large_guide(0)));
  gate.open();
}

// Each takes as long as its budget lets it.
TEST(what_is_left_over_at_the_end_is_stopped_and_unavailable) {
  std::vector<std::shared_ptr<const RequestedGuide>> left_over;
  {
    Fixture f;
    for (int i = 0; i < kMoreThanThreads; ++i) {
      left_over.push_back(f.decoder->compile({Type::kRegex, kBeyondBudget + std::to_string(i)}));
    }
  }
  CHECK_ERROR(left_over.back()->get(), ErrorCode::kUnavailable, "the server stops");
}

TEST(a_compile_has_a_budget) {
  Fixture f;
  // Positions; under a sanitizer, seconds.
  CHECK_ERROR(f.compile(Type::kRegex, kBeyondBudget), ErrorCode::kInvalidArgument, " more than ");
}

TEST(tokenizers_that_do_not_fit_are_refused) {
  const Directory directory;
  const auto refused = [&](ErrorCode code, const std::string& message) {
    CHECK_ERROR(GuidedDecoder(directory.path(), kVocabSize, {kEnd}, 1), code, message);
  };
  refused(ErrorCode::kNotFound, "tokenizer.json cannot be read");
  directory.write_tokenizer("{");
  refused(ErrorCode::kInvalidArgument, "tokenizer.json: ");
  directory.write_tokenizer(R"({"decoder": {"type": "Fuse"}, "model": {"vocab": {"a": "b"}}})");
  refused(ErrorCode::kInvalidArgument, "tokenizer.json: ");
  directory.write_tokenizer(R"({"decoder": {"type": "Fuse"}, "model": {"vocab": {"a": 40}}})");
  refused(ErrorCode::kInvalidArgument, "has token 40; the engine's vocabulary has 40 tokens");
  directory.write_tokenizer(R"({"decoder": {"type": "WordPiece", "prefix": "##"}, "model": {"vocab": {"a": 1}}})");
  refused(ErrorCode::kInvalidArgument, "WordPiece");
}

// The loop takes one mask while others are made; the sanitizers watch.
TEST(masks_are_made_beside_other_work) {
  constexpr int kSlots = 8;
  Fixture f(kSlots);
  const auto guide = f.compile(Type::kGrammar, "root ::= (\"a\" | \"b\" | \"c\" \"1\"){0,60}");
  std::mt19937 random(0);
  for (int round = 0; round < 5; ++round) {
    for (int slot = 0; slot < kSlots; ++slot) f.decoder->start(slot, guide, {});
    for (int step = 0; step < 30; ++step) {
      for (int slot = 0; slot < kSlots; ++slot) {
        if (random() % 20 == 0) {
          f.decoder->finish(slot);
          f.decoder->start(slot, guide, {});
          continue;
        }
        while (!f.decoder->has_mask(slot)) std::this_thread::yield();
        const auto mask = f.decoder->mask(slot);
        int32_t next = 1;
        while (!(mask[next / 32] >> next % 32 & 1)) ++next;
        f.decoder->accept(slot, next);
      }
    }
    for (int slot = 0; slot < kSlots; ++slot) CHECK(!f.decoder->is_terminated(slot));
  }
}

}  // namespace

TEST_MAIN()
