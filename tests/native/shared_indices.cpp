// Threads in many orders, and truly at once, take every index of SharedIndices exactly once. Prints
// what went wrong; nothing is right.

#include "runtime/shared_indices.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

namespace {

using convolith::Range;
using convolith::SharedIndices;

struct Case {
  std::int64_t count, grain;
  int team;
  bool backwards;

  void complain(const char* what) const {
    std::printf("%lld indices, grain %lld, team %d%s: %s\n", static_cast<long long>(count),
                static_cast<long long>(grain), team, backwards ? ", backwards" : "", what);
  }
};

/// Where the ranges do not make up [0, count).
void check_cover(const Case& c, std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::int64_t at = 0;
  for (const Range& range : ranges) {
    if (range.begin != at || range.end <= range.begin) return c.complain("a gap or an overlap");
    at = range.end;
  }
  if (at != c.count) c.complain("the last ones are missing");
}

/// next() names the thread that takes; the rest is taken by the first, whosever share it is.
template <class Next>
void check_order(const Case& c, const Next& next) {
  SharedIndices indices(c.count, c.grain, c.team, c.backwards);
  std::vector<Range> ranges;
  int misses = 0;
  while (misses < 4 * c.team) {
    const int thread = next();
    const Range range = indices.take(thread);
    if (range.begin == range.end) {
      ++misses;
      continue;
    }
    ranges.push_back(range);
    if (c.count < 1 << 30 && range.end - range.begin > c.grain) c.complain("more than a grain");
    const int place = c.backwards ? c.team - 1 - thread : thread;
    if (ranges.size() == 1 && range.begin != Range::share(c.count, place, c.team).begin &&
        c.count >= c.team && c.count < 1 << 30) {
      c.complain("a thread does not begin with its own share");
    }
  }
  for (Range range = indices.take(0); range.begin < range.end; range = indices.take(0)) {
    ranges.push_back(range);
  }
  check_cover(c, ranges);
}

void check_at_once(const Case& c) {
  SharedIndices indices(c.count, c.grain, c.team, c.backwards);
  std::vector<std::vector<Range>> taken(static_cast<std::size_t>(c.team));
  std::vector<std::thread> team;
  for (int thread = 0; thread < c.team; ++thread) {
    team.emplace_back([&, thread] {
      auto& mine = taken[static_cast<std::size_t>(thread)];
      for (Range r = indices.take(thread); r.begin < r.end; r = indices.take(thread)) {
        mine.push_back(r);
      }
    });
  }
  for (std::thread& one : team) one.join();
  std::vector<Range> all;
  for (const auto& some : taken) all.insert(all.end(), some.begin(), some.end());
  check_cover(c, all);
}

}  // namespace

int main() {
  std::mt19937 random(1);
  for (int team : {1, 2, 3, 7}) {
    for (std::int64_t count : {1, 2, 3, 7, 16, 100, 1009}) {
      for (std::int64_t grain : {1, 2, 5, 200}) {
        for (bool backwards : {false, true}) {
          const Case c{count, grain, team, backwards};
          int turn = 0;
          check_order(c, [&] { return turn++ % team; });
          check_order(c, [&] { return team - 1; });
          check_order(c, [&] { return static_cast<int>(random() % static_cast<unsigned>(team)); });
        }
      }
    }
  }
  const Case many{(std::int64_t{5} << 30) + 7, 1 << 27, 3, false};  // more than 32 bits hold
  int turn = 0;
  check_order(many, [&] { return turn++ % many.team; });
  for (int repeat = 0; repeat < 200; ++repeat) check_at_once({2000, 1 + repeat % 3, 4, false});
}
