#include <algorithm>
#include <bit>

#include "protocol/ring_search.hpp"

namespace pccl {

namespace {

// Every set of peers is a mask without peer 0, where all paths start: bit i stands for peer i + 1.
class ExactRing {
 public:
  explicit ExactRing(const RingGraph& graph)
      : graph_(graph), others_(graph.size() - 1), full_((1u << others_) - 1), into_(others_) {}

  // Whether a ring exists whose links all have this rank or a higher one.
  bool exists(std::uint32_t floor) {
    forbid_below(floor);
    std::vector<std::uint16_t> ends(full_ + 1, 0);  // by set: where a path through all of it may end
    for (std::uint32_t set = 1; set <= full_; ++set)
      for (std::uint32_t rest = set; rest != 0; rest &= rest - 1) {
        const auto last = std::uint32_t(std::countr_zero(rest));
        const auto before = set & ~(1u << last);
        const bool reached = before == 0 ? (out_of_0_ >> last & 1) != 0 : (ends[before] & into_[last]) != 0;
        if (reached) ends[set] = std::uint16_t(ends[set] | 1u << last);
      }
    return (ends[full_] & into_0_) != 0;
  }

  // The shortest ring of such links, the lexicographically smallest of them. One exists.
  RingOrder shortest(std::uint32_t floor) {
    forbid_below(floor);
    fill_ways_home();
    RingOrder order{0};
    std::uint32_t visited = 0, at = 0;
    while (visited != full_) {
      at = next_of(at, visited);
      visited |= 1u << (at - 1);
      order.push_back(at);
    }
    return order;
  }

 private:
  static constexpr std::uint64_t no_way = UINT64_MAX / 2;

  void forbid_below(std::uint32_t floor) {
    out_of_0_ = into_0_ = 0;
    for (std::uint32_t i = 0; i < others_; ++i) {
      out_of_0_ |= std::uint32_t(graph_.edge(0, i + 1).rank >= floor) << i;
      into_0_ |= std::uint32_t(graph_.edge(i + 1, 0).rank >= floor) << i;
      into_[i] = 0;
      for (std::uint32_t from = 0; from < others_; ++from)
        into_[i] |= std::uint32_t(from != i && graph_.edge(from + 1, i + 1).rank >= floor) << from;
    }
  }

  bool allowed(std::uint32_t from, std::uint32_t to) const {
    return ((from == 0 ? out_of_0_ >> (to - 1) : into_[to - 1] >> (from - 1)) & 1) != 0;
  }

  std::uint64_t& way_home(std::uint32_t visited, std::uint32_t at) {
    return ways_home_[std::size_t{visited} * others_ + at - 1];
  }

  // The shortest way from `at` through all that is not visited, and home to 0.
  void fill_ways_home() {
    ways_home_.assign(std::size_t{full_ + 1} * others_, no_way);
    for (std::uint32_t at = 1; at <= others_; ++at)
      if ((into_0_ >> (at - 1) & 1) != 0) way_home(full_, at) = graph_.edge(at, 0).rtt_ns;
    for (std::uint32_t visited = full_; visited-- > 1;)
      for (std::uint32_t rest = visited; rest != 0; rest &= rest - 1) {
        const auto at = std::uint32_t(std::countr_zero(rest)) + 1;
        way_home(visited, at) = shortest_way(at, visited);
      }
  }

  std::uint64_t way_over(std::uint32_t at, std::uint32_t next, std::uint32_t visited) {
    if (!allowed(at, next)) return no_way;
    return std::min(no_way, graph_.edge(at, next).rtt_ns + way_home(visited | 1u << (next - 1), next));
  }

  std::uint64_t shortest_way(std::uint32_t at, std::uint32_t visited) {
    std::uint64_t least = no_way;
    for (std::uint32_t rest = full_ & ~visited; rest != 0; rest &= rest - 1)
      least = std::min(least, way_over(at, std::uint32_t(std::countr_zero(rest)) + 1, visited));
    return least;
  }

  std::uint32_t next_of(std::uint32_t at, std::uint32_t visited) {
    const auto least = shortest_way(at, visited);
    for (std::uint32_t rest = full_ & ~visited;; rest &= rest - 1) {
      const auto next = std::uint32_t(std::countr_zero(rest)) + 1;
      if ((rest & (rest - 1)) == 0 || way_over(at, next, visited) == least) return next;
    }
  }

  const RingGraph& graph_;
  std::uint32_t others_, full_;
  std::uint32_t out_of_0_ = 0, into_0_ = 0;
  std::vector<std::uint32_t> into_;  // by peer: from which it may be reached
  std::vector<std::uint64_t> ways_home_;
};

}  // namespace

RingOrder exact_ring(const RingGraph& graph, std::uint32_t slack_percent) {
  ExactRing rings(graph);
  std::uint32_t good = 0, bad = graph.rank_bound() + 1;  // with every link allowed there is a ring
  while (bad - good > 1) {
    const auto middle = good + (bad - good) / 2;
    (rings.exists(middle) ? good : bad) = middle;
  }
  return rings.shortest(graph.rank_within(good, slack_percent));
}

}  // namespace pccl
