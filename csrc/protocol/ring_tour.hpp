// A ring order under change: what a move would gain is known at once, carrying it out takes a pass over the
// order.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "protocol/ring_graph.hpp"

namespace pccl {

// Replaces the link a -> b. Places count from b, which has place 0; a has place n - 1.
struct RingMove {
  enum class Kind : std::uint8_t {
    none,
    exchange,      // b..c d..e f..a becomes d..e b..c f..a; d has place `x`, e has place `y`
    reverse_head,  // b..c d..a becomes c..b d..a; c has place `x`
    reverse_tail,  // b..c d..a becomes b..c a..d; d has place `x`
  };
  Kind kind = Kind::none;
  std::uint32_t a = 0, x = 0, y = 0;
  std::int64_t gained = 0;  // cost saved; may be negative
};

class RingTour {
 public:
  // More than all round trips of a ring together: one slow link less is worth any detour.
  static constexpr std::int64_t penalty = std::int64_t{1} << 44;
  // A link still slower than those just below the floor is worth many of them.
  static constexpr std::int64_t penalty_far_below = 16 * penalty;

  explicit RingTour(const RingGraph& graph) : graph_(graph) {}

  void set(std::vector<std::uint32_t> order);
  const std::vector<std::uint32_t>& order() const { return order_; }
  std::uint32_t size() const { return std::uint32_t(order_.size()); }

  // Links below this rank cost `penalty` more each; the others their round trips, or nothing.
  void set_floor(std::uint32_t rank, bool round_trips_count = true);

  std::uint32_t next(std::uint32_t peer) const { return order_[at_[peer] + 1 == size() ? 0 : at_[peer] + 1]; }
  std::uint32_t previous(std::uint32_t peer) const {
    return order_[at_[peer] == 0 ? size() - 1 : at_[peer] - 1];
  }
  // Place of a peer counted from b = next(a), and back.
  std::uint32_t place(std::uint32_t a, std::uint32_t peer) const;
  std::uint32_t peer_at(std::uint32_t a, std::uint32_t place) const;

  // Fills `gained`; false where the places make no move.
  bool evaluate(RingMove& move) const;
  void apply(const RingMove& move);

  std::int64_t cost() const { return along_.back(); }  // round trips and penalties
  struct Worst {
    std::uint32_t rank = 0, from = 0;  // the slowest link, and the first peer that such a link leaves
  };
  Worst worst() const;

 private:
  std::int64_t cost(const RingGraph::Edge& edge) const {
    const auto fine = edge.rtt_ns & round_trips_;
    if (edge.rank >= floor_) return fine;
    return fine + (edge.rank + 1 == floor_ || round_trips_ == 0 ? penalty : penalty_far_below);
  }
  std::int64_t cost(std::uint32_t from, std::uint32_t to) const { return cost(graph_.edge(from, to)); }
  void evaluate_exchange(RingMove& move) const;
  void evaluate_reversal(RingMove& move, std::uint32_t first, std::uint32_t last) const;
  std::int64_t sum(const std::vector<std::int64_t>& sums, std::uint32_t begin, std::uint32_t count) const;
  void sum_up();

  const RingGraph& graph_;
  std::uint32_t floor_ = 0;
  std::uint32_t round_trips_ = UINT32_MAX;  // a mask: all or nothing
  std::vector<std::uint32_t> order_, at_, scratch_;
  // By position: the link to the next one, and the one back from it.
  std::vector<RingGraph::Edge> forth_, back_;
  std::vector<std::int64_t> along_, against_;  // sums of their costs over the positions before
};

}  // namespace pccl
