#include "batch_manager/guided/guided_decoder.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "batch_manager/guided/guide_budget.h"
#include "batch_manager/guided/guide_compiler.h"
#include "batch_manager/guided/guide_matcher.h"
#include "batch_manager/guided/guided_vocabulary.h"
#include "common/available_cpus.h"
#include "common/error.h"
#include "common/rounding.h"

namespace inflight {
namespace {

constexpr int kMaxWorkers = 8;

// What a slot's sequence follows.
struct Course {
  std::shared_ptr<const CompiledGuide> guide;  // null: there is no sequence
  std::vector<int32_t> end_ids;
};

struct Slot {
  // Guarded by the mutex: what a worker has to do next.
  std::optional<Course> next_course;
  std::vector<int32_t> accepted;
  bool is_started = false;
  bool is_queued = false;  // in the queue, or with a worker

  // The worker's that took the slot from the queue.
  Course course;
  std::optional<GuideMatcher> matcher;
  std::vector<int32_t> taken;
  std::span<uint32_t> words;

  // A worker's until is_ready.
  std::atomic<bool> is_ready = true;
  bool is_terminated = false;
  bool may_end = false;
  std::optional<Error> failure;
};

bool contains(const std::vector<int32_t>& ids, int32_t id) { return std::ranges::find(ids, id) != ids.end(); }

void allow(std::span<uint32_t> words, int32_t token) { words[token / 32] |= 1u << token % 32; }
void refuse(std::span<uint32_t> words, int32_t token) { words[token / 32] &= ~(1u << token % 32); }

void accept_taken(Slot& slot) {
  for (const int32_t token : slot.taken) {
    if (slot.is_terminated) return;
    if (contains(slot.course.end_ids, token) && slot.matcher->is_complete()) {
      slot.is_terminated = true;
    } else if (!slot.matcher->accept(token)) {
      throw_error(ErrorCode::kInternal, "guided_decoding: token ", token, " does not follow the guide");
    }
  }
}

void make_mask(Slot& slot) {
  if (!slot.is_terminated) {
    const bool is_complete = slot.matcher->is_complete();
    slot.may_end = is_complete;
    const bool continues = slot.matcher->fill(slot.words);
    if (!continues && !is_complete) {
      throw_error(ErrorCode::kInvalidArgument,
                  "guided_decoding: no token continues the text; the guide has a rule "
                  "that never ends");
    }
    if (continues) {
      for (const int32_t end_id : slot.course.end_ids)
        is_complete ? allow(slot.words, end_id) : refuse(slot.words, end_id);
      return;
    }
  }
  slot.is_terminated = true;
  std::ranges::fill(slot.words, 0);
  for (const int32_t end_id : slot.course.end_ids) allow(slot.words, end_id);
}

// What the worker found to do, with the slot's mutex released.
void proceed(Slot& slot, std::optional<Course> next_course) {
  if (next_course) {
    slot.course = std::move(*next_course);
    slot.matcher.reset();
    slot.is_terminated = false;
    slot.failure.reset();
    if (slot.course.guide) slot.matcher.emplace(*slot.course.guide);
  }
  if (!slot.matcher || slot.failure) return;
  try {
    MaskBudget budget;
    accept_taken(slot);
    make_mask(slot);
    return;
  } catch (const Error& e) {
    slot.failure = e;
  } catch (const std::exception& e) {
    slot.failure = Error(ErrorCode::kInternal, concat("guided_decoding: ", e.what()));
  }
  std::ranges::fill(slot.words, 0);
  for (const int32_t end_id : slot.course.end_ids) allow(slot.words, end_id);
}

}  // namespace

struct GuidedDecoder::Implementation {
  Implementation(const std::filesystem::path& tokenizer_dir, int32_t vocab_size, std::vector<int32_t> end_ids,
                 int32_t num_slots, std::function<void()> on_compiled)
      : end_ids(std::move(end_ids)),
        words_per_mask(divide_up(vocab_size, 32)),
        masks(num_slots * words_per_mask),
        slots(num_slots),
        compiler(read_guided_vocabulary(tokenizer_dir, vocab_size, this->end_ids), std::move(on_compiled)) {
    queue.reserve(num_slots);
    for (int32_t slot = 0; slot < num_slots; ++slot) {
      slots[slot].words = std::span(masks).subspan(slot * words_per_mask, words_per_mask);
    }
    const int num_workers = std::clamp(available_cpus() / 4, 1, kMaxWorkers);
    for (int i = 0; i < num_workers; ++i) workers.emplace_back([this] { work(); });
  }

  ~Implementation() {
    {
      const std::lock_guard lock(mutex);
      is_stopping = true;
    }
    changed.notify_all();
    for (std::thread& worker : workers) worker.join();
  }

  // Hands the slot to a worker if `change`, which says what there is to do, returns true.
  template <class Change>
  void enqueue(int32_t index, Change&& change) {
    const std::lock_guard lock(mutex);
    Slot& slot = slots[index];
    if (!change(slot)) return;
    slot.is_ready.store(false, std::memory_order_relaxed);
    if (slot.is_queued) return;
    slot.is_queued = true;
    queue.push_back(index);
    changed.notify_one();
  }

  void work() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [this] { return is_stopping || !queue.empty(); });
      if (is_stopping) return;
      Slot& slot = slots[queue.front()];
      queue.erase(queue.begin());
      while (slot.next_course || !slot.accepted.empty()) {
        std::optional<Course> next_course = std::exchange(slot.next_course, std::nullopt);
        slot.taken.swap(slot.accepted);
        lock.unlock();
        proceed(slot, std::move(next_course));
        slot.taken.clear();
        lock.lock();
      }
      slot.is_queued = false;
      slot.is_ready.store(true, std::memory_order_release);
      ready.notify_all();
    }
  }

  static bool is_ready(const Slot& slot) { return slot.is_ready.load(std::memory_order_acquire); }

  Slot& wait(int32_t index) {
    Slot& slot = slots[index];
    if (is_ready(slot)) return slot;
    std::unique_lock lock(mutex);
    ready.wait(lock, [&] { return is_ready(slot); });
    return slot;
  }

  bool wait_until(int32_t index, std::chrono::steady_clock::time_point deadline) {
    const Slot& slot = slots[index];
    if (is_ready(slot)) return true;
    std::unique_lock lock(mutex);
    return ready.wait_until(lock, deadline, [&] { return is_ready(slot); });
  }

  const std::vector<int32_t> end_ids;
  const int64_t words_per_mask;
  std::vector<uint32_t> masks;  // [num_slots, words_per_mask]
  std::vector<Slot> slots;
  GuideCompiler compiler;

  std::mutex mutex;
  std::condition_variable changed;
  std::condition_variable ready;  // a slot is
  bool is_stopping = false;
  std::vector<int32_t> queue;  // slots with something to do, first come first served; at most all of them
  std::vector<std::thread> workers;
};

GuidedDecoder::GuidedDecoder(const std::filesystem::path& tokenizer_dir, int32_t vocab_size,
                             std::vector<int32_t> end_ids, int32_t num_slots, std::function<void()> on_compiled)
    : implementation_(std::make_unique<Implementation>(tokenizer_dir, vocab_size, std::move(end_ids), num_slots,
                                                       std::move(on_compiled))) {}

GuidedDecoder::~GuidedDecoder() = default;

std::shared_ptr<const RequestedGuide> GuidedDecoder::compile(const GuidedDecoding& guide) {
  return implementation_->compiler.compile(guide);
}

void GuidedDecoder::start(int32_t slot, std::shared_ptr<const CompiledGuide> guide, std::span<const int32_t> generated,
                          std::span<const int32_t> end_ids) {
  Course course{std::move(guide),
                end_ids.empty() ? implementation_->end_ids : std::vector<int32_t>(end_ids.begin(), end_ids.end())};
  implementation_->enqueue(slot, [&](Slot& state) {
    state.next_course = std::move(course);
    state.accepted.assign(generated.begin(), generated.end());
    return state.is_started = true;
  });
}

void GuidedDecoder::accept(int32_t slot, int32_t token) {
  implementation_->enqueue(slot, [&](Slot& state) {
    state.accepted.push_back(token);
    return true;
  });
}

void GuidedDecoder::finish(int32_t slot) {
  implementation_->enqueue(slot, [](Slot& state) {
    state.next_course = Course{};
    state.accepted.clear();
    return std::exchange(state.is_started, false);
  });
}

bool GuidedDecoder::is_terminated(int32_t slot) const {
  const Slot& state = implementation_->wait(slot);
  if (state.failure) throw *state.failure;
  return state.is_terminated;
}

bool GuidedDecoder::may_end(int32_t slot) const { return is_terminated(slot) || implementation_->slots[slot].may_end; }

bool GuidedDecoder::has_mask(int32_t slot, std::chrono::steady_clock::time_point deadline) {
  return implementation_->wait_until(slot, deadline);
}

std::span<const uint32_t> GuidedDecoder::mask(int32_t slot) const { return implementation_->wait(slot).words; }

}  // namespace inflight
