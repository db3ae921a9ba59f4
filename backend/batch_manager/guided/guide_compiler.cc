#include "batch_manager/guided/guide_compiler.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "batch_manager/guided/ebnf_text.h"
#include "batch_manager/guided/guide_budget.h"
#include "batch_manager/guided/guide_matcher.h"
#include "batch_manager/guided/json_schema_grammar.h"
#include "batch_manager/guided/regex.h"
#include "batch_manager/guided/xgrammar_logging.h"
#include "common/available_cpus.h"
#include "common/error.h"

namespace inflight {
namespace {

using nlohmann::json;

constexpr size_t kMaxGuides = 64;             // kept
constexpr int64_t kMaxBytes = 256 << 20;      // of all compiled guides that are kept
constexpr size_t kMaxWaiting = 64;            // guides that no thread compiles yet
constexpr size_t kMaxLargeWaiting = kMaxWaiting / 2;
constexpr size_t kMaxGuideBytes = 128 << 10;  // of one guide, as it is sent
constexpr size_t kLargeGuideBytes = 2 << 10;  // others are usually compiled within milliseconds
constexpr int kMinThreads = 2, kMaxThreads = 8;
constexpr const char* kStops = "guided_decoding: the server stops";
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

xgrammar::Grammar choice_grammar(const std::string& guide) {
  const json choices = json::parse(guide);
  if (!choices.is_array() || choices.empty() || !std::ranges::all_of(choices, &json::is_string)) {
    fail("the guide must be a JSON list of one or more strings");
  }
  std::string rule = "root ::= ";
  for (const json& choice : choices) {
    if (&choice != &choices.front()) rule += " | ";
    rule += ebnf_literal(choice.get_ref<const std::string&>());
  }
  return xgrammar::Grammar::FromEBNF(rule);
}

xgrammar::Grammar grammar_of(const GuidedDecoding& guide) {
  if (guide.guide.size() > kMaxGuideBytes) {
    fail("the guide has ", guide.guide.size(), " bytes; it can have at most ", kMaxGuideBytes);
  }
  switch (guide.type) {
    case GuidedDecoding::Type::kJson:
      if (!guide.guide.empty()) fail("takes no guide");
      return json_object_grammar(kMaxWhitespace);
    case GuidedDecoding::Type::kJsonSchema: return json_schema_grammar(guide.guide, kMaxWhitespace);
    case GuidedDecoding::Type::kRegex:
      return xgrammar::Grammar::FromEBNF("root ::= " + to_ebnf(parse_regex(guide.guide), /*json_string=*/false));
    case GuidedDecoding::Type::kGrammar: return xgrammar::Grammar::FromEBNF(guide.guide);
    case GuidedDecoding::Type::kChoice: return choice_grammar(guide.guide);
  }
  fail("is no type of guide");
}

std::shared_ptr<const CompiledGuide> compile_guide(const GuidedDecoding& guide,
                                                   const std::shared_ptr<const GuidedVocabulary>& vocabulary) {
  try {
    const XgrammarWarnings warnings;
    const xgrammar::Grammar grammar = grammar_of(guide);
    if (!warnings.messages().empty()) fail(warnings.messages().front());
    // The library's own cache, of rules that guides share, fails for some repetitions in patterns of JSON schemas. Its
    // threads would not end when the budget is spent.
    xgrammar::GrammarCompiler compiler(vocabulary->tokens, /*max_threads=*/1, /*cache_enabled=*/false);
    auto compiled = std::make_shared<CompiledGuide>(CompiledGuide{compiler.CompileGrammar(grammar), vocabulary});
    compiled->first_tokens = first_tokens(*compiled);
    const bool has_texts = std::ranges::any_of(compiled->first_tokens, [](uint32_t word) { return word != 0; });
    if (!has_texts && !GuideMatcher(*compiled).is_complete()) fail("no text of the model's tokens follows it");
    return compiled;
  } catch (const std::exception& e) {
    fail("guided_decoding: ", name(guide.type), ": ", e.what());
  }
}

bool is_large(const RequestedGuide& guide) { return guide.guide().guide.size() > kLargeGuideBytes; }

}  // namespace

GuideCompiler::GuideCompiler(GuidedVocabulary vocabulary, std::function<void()> on_compiled)
    : vocabulary_(std::make_shared<const GuidedVocabulary>(std::move(vocabulary))),
      on_compiled_(std::move(on_compiled)),
      num_threads_(std::clamp(available_cpus() / 2, kMinThreads, kMaxThreads)) {
  for (int i = 0; i < num_threads_; ++i) threads_.emplace_back([this] { run(); });
}

GuideCompiler::~GuideCompiler() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  for (const auto& [key, unready] : unready_) {
    if (const auto guide = unready.lock()) guide->fail(Error(ErrorCode::kUnavailable, kStops));
  }
}

std::shared_ptr<const RequestedGuide> GuideCompiler::compile(const GuidedDecoding& guide) {
  const std::lock_guard lock(mutex_);
  const Key key(guide.type, guide.guide);
  if (const auto known = kept_by_key_.find(key); known != kept_by_key_.end()) {
    kept_.splice(kept_.begin(), kept_, known->second);
    return kept_.front().guide;
  }
  drop_unwanted();
  if (const auto known = unready_.find(key); known != unready_.end()) {
    if (auto unready = known->second.lock()) return unready;
  }
  auto requested = std::make_shared<RequestedGuide>(guide);
  check_room(is_large(*requested));
  unready_[key] = requested;
  waiting_.push_back(requested);
  changed_.notify_all();  // not every thread may take it
  return requested;
}

// With the mutex held.
void GuideCompiler::check_room(bool for_large) const {
  const auto refuse = [](size_t count, const char* kind) {
    throw_error(ErrorCode::kUnavailable, "guided_decoding: ", count, kind, " wait to be compiled; try again later");
  };
  if (waiting_.size() >= kMaxWaiting) refuse(waiting_.size(), " guides");
  const auto is_waiting_large = [](const auto& waiting) {
    const auto guide = waiting.lock();
    return guide != nullptr && is_large(*guide);
  };
  const auto num_large = static_cast<size_t>(std::ranges::count_if(waiting_, is_waiting_large));
  if (for_large && num_large >= kMaxLargeWaiting) refuse(num_large, " large guides");
}

// With the mutex held.
void GuideCompiler::drop_unwanted() {
  std::erase_if(waiting_, [](const auto& guide) { return guide.expired(); });
  std::erase_if(unready_, [](const auto& entry) { return entry.second.expired(); });
}

// The first that may be compiled now, or null. With the mutex held.
std::shared_ptr<RequestedGuide> GuideCompiler::take_waiting() {
  drop_unwanted();
  for (auto waiting = waiting_.begin(); waiting != waiting_.end(); ++waiting) {
    auto guide = waiting->lock();
    if (guide == nullptr || (is_large(*guide) && num_large_ >= num_threads_ - 1)) continue;
    waiting_.erase(waiting);
    return guide;
  }
  return nullptr;
}

void GuideCompiler::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    std::shared_ptr<RequestedGuide> guide;
    changed_.wait(lock, [&] { return is_stopping_ || (guide = take_waiting()) != nullptr; });
    if (is_stopping_) return;
    const bool is_large = inflight::is_large(*guide);
    num_large_ += is_large;
    lock.unlock();
    compile(std::move(guide));
    lock.lock();
    num_large_ -= is_large;
    changed_.notify_all();
  }
}

void GuideCompiler::compile(std::shared_ptr<RequestedGuide> requested) {
  const GuidedDecoding guide = requested->guide();
  const std::weak_ptr<RequestedGuide> wanted = requested;
  requested.reset();  // whoever asked for it may go
  std::shared_ptr<const CompiledGuide> compiled;
  std::optional<Error> error;
  try {
    const CompileBudget budget([&] { return is_stopping_ || wanted.expired(); });
    compiled = compile_guide(guide, vocabulary_);
  } catch (const Error& e) {
    error = e;
  }
  {
    const std::lock_guard lock(mutex_);
    requested = wanted.lock();
    if (requested == nullptr || is_stopping_) return;
    unready_.erase(Key(guide.type, guide.guide));
    keep(requested, compiled ? static_cast<int64_t>(compiled->grammar.MemorySizeBytes()) : 0);
  }
  if (error) {
    requested->fail(*error);
  } else {
    requested->finish(std::move(compiled));
  }
  if (on_compiled_) on_compiled_();
}

// Errors are kept, too: a guide that is beyond the budget costs it once. With the mutex held.
void GuideCompiler::keep(std::shared_ptr<RequestedGuide> guide, int64_t bytes) {
  Key key(guide->guide().type, guide->guide().guide);
  kept_.push_front({std::move(guide), bytes});
  kept_by_key_[std::move(key)] = kept_.begin();
  kept_bytes_ += bytes;
  while (kept_.size() > kMaxGuides || (kept_bytes_ > kMaxBytes && kept_.size() > 1)) {
    const Kept& last = kept_.back();
    kept_bytes_ -= last.bytes;
    kept_by_key_.erase({last.guide->guide().type, last.guide->guide().guide});
    kept_.pop_back();
  }
}

}  // namespace inflight
