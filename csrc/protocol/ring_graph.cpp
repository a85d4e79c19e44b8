#include "protocol/ring_graph.hpp"

#include <algorithm>

namespace pccl {

namespace {

// Calls visit(from, to, link) for what is known between these peers, by their numbers.
template <class F>
void each_known(const LinkMatrix& matrix, const std::vector<PeerId>& ascending, const F& visit) {
  for (std::uint32_t from = 0; from < ascending.size(); ++from) {
    auto to = ascending.begin();
    for (const auto& entry : matrix.row(ascending[from])) {
      to = std::lower_bound(to, ascending.end(), entry.to);
      if (to == ascending.end()) break;
      if (*to == entry.to) visit(from, std::uint32_t(to - ascending.begin()), entry.link);
    }
  }
}

template <class T> T lower_median(std::vector<T>& values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + std::ptrdiff_t((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

Link median_link(const LinkMatrix& matrix, const std::vector<PeerId>& ascending) {
  std::vector<std::uint64_t> bandwidths;
  std::vector<Duration> rtts;
  each_known(matrix, ascending, [&](std::uint32_t, std::uint32_t, const Link& link) {
    if (link.bandwidth != 0) bandwidths.push_back(link.bandwidth);
    if (link.rtt != 0) rtts.push_back(link.rtt);
  });
  return {lower_median(bandwidths), lower_median(rtts)};
}

Link assumed_link(const LinkMatrix& matrix, const Link& median, PeerId from, PeerId to) {
  auto link = matrix.at(from, to);
  if (link.bandwidth == 0) link.bandwidth = median.bandwidth;
  if (link.rtt == 0) link.rtt = matrix.at(to, from).rtt;
  if (link.rtt == 0) link.rtt = median.rtt;
  return link;
}

RingGraph::RingGraph(const LinkMatrix& matrix, const std::vector<PeerId>& ascending)
    : size_(std::uint32_t(ascending.size())), edges_(ascending.size() * ascending.size()) {
  const auto median = median_link(matrix, ascending);
  bandwidths_.push_back(median.bandwidth);
  each_known(matrix, ascending, [&](std::uint32_t, std::uint32_t, const Link& link) {
    if (link.bandwidth != 0) bandwidths_.push_back(link.bandwidth);
  });
  std::ranges::sort(bandwidths_);
  bandwidths_.erase(std::unique(bandwidths_.begin(), bandwidths_.end()), bandwidths_.end());
  fill(matrix, ascending, median);
}

void RingGraph::fill(const LinkMatrix& matrix, const std::vector<PeerId>& ascending, const Link& median) {
  const auto rank_of = [&](std::uint64_t bandwidth) {
    return std::uint32_t(std::ranges::lower_bound(bandwidths_, bandwidth) - bandwidths_.begin());
  };
  std::ranges::fill(edges_, Edge{rank_of(median.bandwidth), 0});
  each_known(matrix, ascending, [&](std::uint32_t from, std::uint32_t to, const Link& link) {
    if (link.bandwidth != 0) at(from, to).rank = rank_of(link.bandwidth);
    if (link.rtt == 0) return;
    at(from, to).rtt_ns = std::uint32_t(link.rtt);
    // Also the way back, unless that was measured itself.
    if (matrix.at(ascending[to], ascending[from]).rtt == 0) at(to, from).rtt_ns = std::uint32_t(link.rtt);
  });
  for (auto& edge : edges_)
    if (edge.rtt_ns == 0) edge.rtt_ns = std::uint32_t(median.rtt);
}

std::uint32_t RingGraph::rank_within(std::uint32_t rank, std::uint32_t slack_percent) const {
  const auto lost = bandwidths_[rank] / 100 * std::min(slack_percent, 100u);
  const auto it = std::ranges::lower_bound(bandwidths_, bandwidths_[rank] - lost);
  return std::uint32_t(it - bandwidths_.begin());
}

std::uint32_t RingGraph::rank_bound() const {
  std::vector<std::uint32_t> out(size_, 0), in(size_, 0);
  for (std::uint32_t from = 0; from < size_; ++from)
    for (std::uint32_t to = 0; to < size_; ++to) {
      if (from == to) continue;
      out[from] = std::max(out[from], edge(from, to).rank);
      in[to] = std::max(in[to], edge(from, to).rank);
    }
  return size_ < 2 ? 0 : std::min(std::ranges::min(out), std::ranges::min(in));
}

}  // namespace pccl
