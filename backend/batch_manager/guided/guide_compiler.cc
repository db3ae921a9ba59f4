#include "batch_manager/guided/guide_compiler.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "batch_manager/guided/guide_matcher.h"
#include "batch_manager/guided/json_schema_check.h"
#include "batch_manager/guided/xgrammar_logging.h"
#include "common/available_cpus.h"
#include "common/error.h"
#include "common/rounding.h"

namespace inflight {
namespace {

using nlohmann::json;

constexpr size_t kMaxGuides = 64;               // kept, compiled or not
constexpr size_t kMaxGuideBytes = 128 << 10;    // more take minutes to compile, and others wait
constexpr int64_t kMaxBytes = 256 << 20;        // of all compiled guides that are kept
constexpr int kMaxThreads = 8;                  // for one guide
constexpr int kMaxWhitespace = 24;              // characters between tokens of JSON: a model that loops comes out

const char* name(GuidedDecoding::Type type) {
  switch (type) {
    case GuidedDecoding::Type::kJson: return "json";
    case GuidedDecoding::Type::kJsonSchema: return "json_schema";
    case GuidedDecoding::Type::kRegex: return "regex";
    case GuidedDecoding::Type::kGrammar: return "grammar";
    case GuidedDecoding::Type::kChoice: return "choice";
  }
  return "unknown";
}

template <class... Args>
[[noreturn]] void fail(const Args&... args) {
  throw_error(ErrorCode::kInvalidArgument, args...);
}

// As a string literal of xgrammar's EBNF.
std::string literal(const std::string& text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string quoted = "\"";
  for (const unsigned char byte : text) {
    if (byte == 0) fail("the guide holds the character U+0000");
    if (byte < 0x20 || byte == 0x7f) {
      quoted += {'\\', 'u', '0', '0', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      if (byte == '"' || byte == '\\') quoted += '\\';
      quoted += static_cast<char>(byte);
    }
  }
  return quoted + '"';
}

xgrammar::Grammar choice_grammar(const std::string& guide) {
  const json choices = json::parse(guide);
  if (!choices.is_array() || choices.empty() || !std::ranges::all_of(choices, &json::is_string)) {
    fail("the guide must be a JSON list of one or more strings");
  }
  std::string rule = "root ::= ";
  for (const json& choice : choices) {
    if (&choice != &choices.front()) rule += " | ";
    rule += literal(choice.get_ref<const std::string&>());
  }
  return xgrammar::Grammar::FromEBNF(rule);
}

json parse_schema(const std::string& guide) {
  json schema = json::parse(guide);
  if (!schema.is_object()) fail("the guide must be a JSON object");
  return schema;
}

xgrammar::Grammar schema_grammar(const std::string& schema, bool allows_what_it_leaves_out) {
  return xgrammar::Grammar::FromJSONSchema(schema, /*any_whitespace=*/true, std::nullopt, std::nullopt,
                                           /*strict_mode=*/!allows_what_it_leaves_out, kMaxWhitespace);
}

xgrammar::Grammar grammar_of(const GuidedDecoding& guide) {
  if (guide.guide.size() > kMaxGuideBytes) {
    fail("the guide has ", guide.guide.size(), " bytes; it can have at most ", kMaxGuideBytes);
  }
  switch (guide.type) {
    case GuidedDecoding::Type::kJson:
      if (!guide.guide.empty()) fail("takes no guide");
      return schema_grammar(R"({"type": "object"})", true);
    case GuidedDecoding::Type::kJsonSchema:
      check_json_schema(parse_schema(guide.guide));
      return schema_grammar(guide.guide, false);
    case GuidedDecoding::Type::kRegex: return xgrammar::Grammar::FromRegex(guide.guide);
    case GuidedDecoding::Type::kGrammar: return xgrammar::Grammar::FromEBNF(guide.guide);
    case GuidedDecoding::Type::kChoice: return choice_grammar(guide.guide);
  }
  fail("is no type of guide");
}

bool has_texts(const CompiledGuide& guide) {
  GuideMatcher matcher(guide);
  std::vector<uint32_t> words(divide_up(guide.vocabulary->size(), 32));
  return matcher.is_complete() || matcher.fill(words);
}

std::shared_ptr<const CompiledGuide> compile_guide(xgrammar::GrammarCompiler& compiler, const GuidedDecoding& guide,
                                                   const std::shared_ptr<const GuidedVocabulary>& vocabulary) {
  try {
    const XgrammarWarnings warnings;
    const xgrammar::Grammar grammar = grammar_of(guide);
    if (!warnings.messages().empty()) fail(warnings.messages().front());
    const bool is_json = guide.type == GuidedDecoding::Type::kJson || guide.type == GuidedDecoding::Type::kJsonSchema;
    auto compiled =
        std::make_shared<const CompiledGuide>(CompiledGuide{compiler.CompileGrammar(grammar), vocabulary, is_json});
    if (!has_texts(*compiled)) fail("no text of the model's tokens follows it");
    return compiled;
  } catch (const std::exception& e) {
    fail("guided_decoding: ", name(guide.type), ": ", e.what());
  }
}

}  // namespace

GuideCompiler::GuideCompiler(GuidedVocabulary vocabulary)
    : vocabulary_(std::make_shared<const GuidedVocabulary>(std::move(vocabulary))), thread_([this] { run(); }) {}

GuideCompiler::~GuideCompiler() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
  const Error error(ErrorCode::kUnavailable, "guided_decoding: the server stops");
  for (const auto& job : waiting_) job->promise.set_exception(std::make_exception_ptr(error));
}

GuideCompiler::Future GuideCompiler::compile(const GuidedDecoding& guide, std::function<void()> on_done) {
  Future future;
  {
    const std::lock_guard lock(mutex_);
    const std::pair key(guide.type, guide.guide);
    const auto known = by_guide_.find(key);
    if (known != by_guide_.end()) {
      jobs_.splice(jobs_.begin(), jobs_, known->second);
    } else {
      auto job = std::make_shared<Job>();
      job->guide = guide;
      job->future = job->promise.get_future().share();
      jobs_.push_front(job);
      by_guide_[key] = jobs_.begin();
      waiting_.push_back(std::move(job));
      forget_old_jobs();
      changed_.notify_one();
    }
    Job& job = *jobs_.front();
    future = job.future;
    if (!job.is_done) {
      if (on_done) job.on_done.push_back(std::move(on_done));
      return future;
    }
  }
  if (on_done) on_done();
  return future;
}

// Those not done are not forgotten, or the same guide would be compiled twice at a time.
void GuideCompiler::forget_old_jobs() {
  for (auto job = jobs_.end(); (jobs_.size() > kMaxGuides || bytes_ > kMaxBytes) && job != jobs_.begin();) {
    --job;
    if (!(*job)->is_done) continue;
    bytes_ -= (*job)->bytes;
    by_guide_.erase({(*job)->guide.type, (*job)->guide.guide});
    job = jobs_.erase(job);
  }
}

void GuideCompiler::run() {
  // The library's own cache, of rules that guides share, fails for some repetitions in patterns of JSON schemas.
  const int num_threads = std::clamp(available_cpus() / 2, 1, kMaxThreads);
  xgrammar::GrammarCompiler compiler(vocabulary_->tokens, num_threads, /*cache_enabled=*/false);
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return is_stopping_ || !waiting_.empty(); });
    if (is_stopping_) return;
    const std::shared_ptr<Job> job = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    try {
      auto guide = compile_guide(compiler, job->guide, vocabulary_);
      job->bytes = static_cast<int64_t>(guide->grammar.MemorySizeBytes());
      job->promise.set_value(std::move(guide));
    } catch (...) {
      job->promise.set_exception(std::current_exception());
    }
    lock.lock();
    job->is_done = true;
    bytes_ += job->bytes;
    forget_old_jobs();
    const auto callbacks = std::move(job->on_done);
    lock.unlock();
    for (const auto& on_done : callbacks) on_done();
    lock.lock();
  }
}

}  // namespace inflight
