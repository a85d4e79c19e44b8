#include "protocol/ring_start.hpp"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace pccl {

namespace {

constexpr std::size_t near_max = 12;

// A link's place among others, packed so that it compares fast: lacking rank, round trip, distance of the
// ids.
struct Merit {
  std::uint64_t cost = 0;
  std::uint32_t distance = 0, from = 0, to = 0;
  bool operator<(const Merit& other) const {
    return std::tie(cost, distance, from) < std::tie(other.cost, other.distance, other.from);
  }
};

Merit merit(const RingGraph& graph, std::uint32_t enough, std::uint32_t from, std::uint32_t to) {
  const auto& edge = graph.edge(from, to);
  const auto lacking = edge.rank < enough ? enough - edge.rank : 0;
  const auto distance = to > from ? to - from : to + graph.size() - from;
  return {std::uint64_t{lacking} << 32 | edge.rtt_ns, distance, from, to};
}

void keep_best(std::vector<Merit>& best, const Merit& candidate) {
  if (best.size() == near_max && !(candidate < best.back())) return;
  if (best.size() == near_max) best.pop_back();
  best.insert(std::ranges::upper_bound(best, candidate, std::less<>{}), candidate);
}

// Stretches of the ring to be: the first and the last of each know each other.
class Fragments {
 public:
  explicit Fragments(std::uint32_t size) : next_(size, nobody), before_(size, nobody), other_end_(size) {
    std::iota(other_end_.begin(), other_end_.end(), 0u);
  }
  bool may_join(std::uint32_t from, std::uint32_t to) const {
    return next_[from] == nobody && before_[to] == nobody && other_end_[from] != to;
  }
  void join(std::uint32_t from, std::uint32_t to) {
    next_[from] = to;
    before_[to] = from;
    const auto head = other_end_[from], tail = other_end_[to];
    other_end_[head] = tail;
    other_end_[tail] = head;
  }
  std::vector<std::uint32_t> heads() const {
    std::vector<std::uint32_t> heads;
    for (std::uint32_t i = 0; i < before_.size(); ++i)
      if (before_[i] == nobody) heads.push_back(i);
    return heads;
  }
  std::uint32_t tail_of(std::uint32_t head) const { return other_end_[head]; }
  std::vector<std::uint32_t> from(std::uint32_t head) const {
    std::vector<std::uint32_t> order;
    for (auto at = head; at != nobody; at = next_[at]) order.push_back(at);
    return order;
  }

 private:
  static constexpr std::uint32_t nobody = UINT32_MAX;
  std::vector<std::uint32_t> next_, before_, other_end_;
};

}  // namespace

NearPeers near_peers(const RingGraph& graph, std::uint32_t enough) {
  const auto n = graph.size();
  std::vector<std::vector<Merit>> out(n), in(n);
  for (std::uint32_t from = 0; from < n; ++from)
    for (std::uint32_t to = 0; to < n; ++to) {
      if (from == to) continue;
      const auto candidate = merit(graph, enough, from, to);
      keep_best(out[from], candidate);
      keep_best(in[to], candidate);
    }
  NearPeers near{std::vector<std::vector<std::uint32_t>>(n), std::vector<std::vector<std::uint32_t>>(n)};
  for (std::uint32_t i = 0; i < n; ++i) {
    for (const auto& best : out[i]) near.out[i].push_back(best.to);
    for (const auto& best : in[i]) near.in[i].push_back(best.from);
  }
  return near;
}

std::vector<std::uint32_t> join_fragments(const RingGraph& graph, const NearPeers& near,
                                          std::uint32_t enough) {
  const auto n = graph.size();
  std::vector<Merit> links;
  for (std::uint32_t i = 0; i < n; ++i) {
    for (const auto to : near.out[i]) links.push_back(merit(graph, enough, i, to));
    for (const auto from : near.in[i]) links.push_back(merit(graph, enough, from, i));
  }
  std::ranges::sort(links, std::less<>{});
  Fragments fragments(n);
  for (const auto& link : links)
    if (fragments.may_join(link.from, link.to)) fragments.join(link.from, link.to);
  // From the end of the first fragment to the best beginning of another, until there is one.
  auto heads = fragments.heads();
  const auto first = heads.front();
  heads.erase(heads.begin());
  while (!heads.empty()) {
    const auto tail = fragments.tail_of(first);
    const auto best = std::ranges::min_element(heads, std::less<>{},
                                               [&](auto to) { return merit(graph, enough, tail, to); });
    fragments.join(tail, *best);
    heads.erase(best);
  }
  return fragments.from(first);
}

}  // namespace pccl
