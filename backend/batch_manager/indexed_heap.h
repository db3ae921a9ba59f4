#pragma once

#include <cstdint>
#include <vector>

namespace inflight {

// A binary heap of the ids 0 .. capacity - 1 with keys, the smallest key on top, that knows the place of every id: keys
// change and ids leave in O(log size). Nothing is allocated after construction.
template <class Key>
class IndexedHeap {
 public:
  explicit IndexedHeap(int32_t capacity) : places_(capacity, kAbsent) { entries_.reserve(capacity); }

  bool empty() const { return entries_.empty(); }
  int32_t size() const { return static_cast<int32_t>(entries_.size()); }
  int32_t top() const { return entries_.front().id; }
  const Key& top_key() const { return entries_.front().key; }
  bool contains(int32_t id) const { return places_[id] != kAbsent; }
  const Key& key(int32_t id) const { return entries_[places_[id]].key; }

  // Adds the id, or changes its key.
  void set(int32_t id, const Key& key) {
    int32_t place = places_[id];
    if (place == kAbsent) {
      place = size();
      entries_.push_back({key, id});
    }
    settle(place, {key, id});
  }

  // Nothing happens if the id is not there.
  void erase(int32_t id) {
    const int32_t place = places_[id];
    if (place == kAbsent) return;
    places_[id] = kAbsent;
    const Entry last = entries_.back();
    entries_.pop_back();
    if (place < size()) settle(place, last);
  }

 private:
  static constexpr int32_t kAbsent = -1;
  struct Entry {
    Key key;
    int32_t id;
  };

  void put(int32_t place, const Entry& entry) {
    entries_[place] = entry;
    places_[entry.id] = place;
  }

  // Starts at `place`, whose entry may be overwritten, and moves others out of the way up or down.
  void settle(int32_t place, const Entry entry) {
    for (int32_t parent; place > 0 && entry.key < entries_[parent = (place - 1) / 2].key; place = parent) {
      put(place, entries_[parent]);
    }
    for (;;) {
      int32_t child = 2 * place + 1;
      if (child + 1 < size() && entries_[child + 1].key < entries_[child].key) ++child;
      if (child >= size() || !(entries_[child].key < entry.key)) break;
      put(place, entries_[child]);
      place = child;
    }
    put(place, entry);
  }

  std::vector<Entry> entries_;
  std::vector<int32_t> places_;  // [capacity] in entries_
};

}  // namespace inflight
