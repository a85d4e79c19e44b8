// The links between the peers of one group as a dense table, for those who search a ring in it. Peers are
// numbered in the order of their ids; bandwidths are ranked, so that searches compare small integers.
#pragma once
#include <cstdint>
#include <vector>

#include "protocol/link_matrix.hpp"

namespace pccl {

// What unknown links count as: the (lower) medians of the known ones between these peers; 0 if there are
// none.
Link median_link(const LinkMatrix& matrix, const std::vector<PeerId>& ascending);
// A link with its unknown halves filled in: the round trip from the other direction or the median.
Link assumed_link(const LinkMatrix& matrix, const Link& median, PeerId from, PeerId to);

class RingGraph {
 public:
  struct Edge {
    std::uint32_t rank = 0;    // into `bandwidths`, higher is faster
    std::uint32_t rtt_ns = 0;  // LinkMatrix knows of none longer than 4 s
  };

  RingGraph(const LinkMatrix& matrix, const std::vector<PeerId>& ascending);

  std::uint32_t size() const { return size_; }
  const Edge& edge(std::uint32_t from, std::uint32_t to) const {
    return edges_[std::size_t{from} * size_ + to];
  }
  std::uint32_t ranks() const { return std::uint32_t(bandwidths_.size()); }
  // The lowest rank that is at most `slack_percent` slower than `rank`.
  std::uint32_t rank_within(std::uint32_t rank, std::uint32_t slack_percent) const;
  // No ring is faster: every peer has to be entered and left.
  std::uint32_t rank_bound() const;

 private:
  Edge& at(std::uint32_t from, std::uint32_t to) { return edges_[std::size_t{from} * size_ + to]; }
  void fill(const LinkMatrix& matrix, const std::vector<PeerId>& ascending, const Link& median);

  std::uint32_t size_;
  std::vector<std::uint64_t> bandwidths_;  // distinct, ascending
  std::vector<Edge> edges_;
};

}  // namespace pccl
