#include "triton/preload/late_ends.h"

#include <vector>

#include "check.h"

using namespace std::chrono_literals;
using inflight::triton::LateEnds;

TEST(ends_come_after_the_delay_and_in_order) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<int> order;
  auto first = begin;
  {
    LateEnds ends(30ms);
    ends.add([&] {
      first = std::chrono::steady_clock::now();
      order.push_back(1);
    });
    ends.add([&] { order.push_back(2); });
  }
  CHECK(first - begin >= 30ms);
  CHECK((order == std::vector<int>{1, 2}));
}

TEST(an_end_may_add_another) {
  int calls = 0;
  {
    LateEnds ends(1ms);
    ends.add([&] {
      ++calls;
      ends.add([&] { ++calls; });
    });
  }
  CHECK(calls == 2);
}

TEST_MAIN()
