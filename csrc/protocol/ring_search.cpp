#include "protocol/ring_search.hpp"

#include <algorithm>
#include <tuple>

#include "base/rng.hpp"
#include "protocol/ring_start.hpp"
#include "protocol/ring_tour.hpp"

namespace pccl {

namespace {

// Up to here a stuck link is tried against all pairs of others, not only against near ones.
constexpr std::uint32_t pairs_peers_max = 128;
constexpr std::uint32_t kick_length_max = 50;
// How many kicks in vain end the search: few peers deserve more, each costs them little.
std::uint32_t kicks_in_vain_max(std::uint32_t peers) { return 200 + 4'000 / peers; }
// Up to here every look at a link goes over all pairs.
constexpr std::uint32_t all_pairs_peers_max = 24;
constexpr std::uint32_t steps_max = 20'000;  // of a walk that gets nowhere
constexpr std::uint32_t short_length = 3;    // stretches that are tried beside those between near peers

using Kind = RingMove::Kind;

class RingSearch {
 public:
  RingSearch(const RingGraph& graph, const RingOptions& options)
      : graph_(graph),
        tour_(graph),
        rng_(options.seed),
        work_max_(options.work_max),
        bound_(graph.rank_bound()) {}

  RingOrder search(const RingOrder& current, std::uint32_t slack_percent) {
    near_ = near_peers(graph_, bound_);
    tour_.set(join_fragments(graph_, near_, bound_));
    if (!current.empty()) {
      const auto greedy = tour_.order();
      const auto [rank, cost] = std::tuple(tour_.worst().rank, tour_.cost());
      tour_.set(current);
      const auto now = tour_.worst().rank;
      if (rank > now || (rank == now && cost < tour_.cost())) tour_.set(greedy);
    }
    widen();
    const auto floor = graph_.rank_within(tour_.worst().rank, slack_percent);
    near_ = near_peers(graph_, floor);
    work_max_ += work_;  // the second half has as much as the first
    shorten(floor);
    return tour_.order();
  }

 private:
  bool spent() const { return work_ >= work_max_; }
  std::uint32_t random(std::uint32_t bound) { return std::uint32_t(rng_.below(bound)); }

  void consider(RingMove move, RingMove& best) {
    ++work_;
    if (tour_.evaluate(move) && (best.kind == Kind::none || move.gained > best.gained)) best = move;
  }
  void apply(const RingMove& move) {
    work_ += tour_.size();
    tour_.apply(move);
  }

  // The move that replaces the link which leaves `a` and gains most.
  RingMove best_move(std::uint32_t a) {
    RingMove best;
    const auto b = tour_.next(a);
    for (const auto d : near_.out[a]) {
      const auto x = tour_.place(a, d);
      consider({Kind::reverse_head, a, x, 0, 0}, best);
      for (std::uint32_t y = x; y < x + short_length; ++y) consider({Kind::exchange, a, x, y, 0}, best);
      for (const auto e : near_.in[b]) consider({Kind::exchange, a, x, tour_.place(a, e), 0}, best);
    }
    for (const auto e : near_.in[b]) {
      const auto y = tour_.place(a, e);
      consider({Kind::reverse_tail, a, y, 0, 0}, best);
      for (std::uint32_t x = 1; x <= short_length; ++x) consider({Kind::exchange, a, x, y, 0}, best);
    }
    return best;
  }

  RingMove best_of_all(std::uint32_t a) {
    RingMove best;
    for (std::uint32_t x = 1; x + 2 <= tour_.size(); ++x) {
      consider({Kind::reverse_head, a, x, 0, 0}, best);
      consider({Kind::reverse_tail, a, x, 0, 0}, best);
      for (std::uint32_t y = x; y + 2 <= tour_.size(); ++y) consider({Kind::exchange, a, x, y, 0}, best);
    }
    return best;
  }

  // Replaces the slowest link by faster ones as long as that is possible.
  void replace_worst() {
    while (!spent()) {
      const auto worst = tour_.worst();
      work_ += tour_.size();
      if (worst.rank >= bound_) return;
      tour_.set_floor(worst.rank + 1);
      // More than half a penalty: fewer links below the floor than before.
      const auto helps = [](const RingMove& move) { return move.gained > RingTour::penalty / 2; };
      auto move = best_move(worst.from);
      if (!helps(move) && tour_.size() <= pairs_peers_max) move = best_of_all(worst.from);
      if (!helps(move)) return;
      const auto before = tour_.order();
      apply(move);
      if (tour_.worst().rank >= worst.rank) continue;
      tour_.set(before);  // it removed many slow links for a slower one
      return;
    }
  }

  // A move at random, often of a link below the floor, often to a near peer.
  RingMove any_move(std::uint32_t below_floor) {
    const auto n = tour_.size();
    RingMove move{Kind(1 + random(3)), random(2) == 0 ? below_floor : random(n), 1 + random(n - 2), 0, 0};
    const auto& near = near_.out[move.a];
    if (random(2) == 0) move.x = tour_.place(move.a, near[random(std::uint32_t(near.size()))]);
    move.y = move.x + random(n - 1 - std::min(move.x, n - 2));
    return move;
  }

  // A walk among orders with few links below the floor; says whether it came to one without any. Detours are
  // free, now and then one more such link is.
  bool wander(std::uint32_t floor) {
    tour_.set_floor(floor, false);
    auto least = tour_.cost();
    auto from = tour_.worst().from;
    for (std::uint32_t step = 0; step < steps_max && !spent() && !holds(); ++step) {
      auto move = any_move(from);
      ++work_;
      const auto allowed = random(16) == 0 ? least + RingTour::penalty : std::max(least, tour_.cost());
      if (!tour_.evaluate(move) || tour_.cost() - move.gained > allowed) continue;
      apply(move);
      work_ += tour_.size();
      from = tour_.worst().from;
      least = std::min(least, tour_.cost());
    }
    return holds();
  }

  // Makes the slowest link as fast as it gets.
  void widen() {
    for (replace_worst(); !spent() && tour_.worst().rank < bound_; replace_worst()) {
      const auto before = tour_.order();
      if (wander(tour_.worst().rank + 1)) continue;
      tour_.set(before);
      break;
    }
  }

  void await(std::uint32_t peer) {
    if (awaits_[peer]) return;
    awaits_[peer] = true;
    waiting_.push_back(peer);
  }

  // Moves that gain, from the peers that wait for a look, until nobody waits.
  void descend() {
    while (!waiting_.empty() && !spent()) {
      const auto a = waiting_.back();
      waiting_.pop_back();
      awaits_[a] = false;
      const auto move = tour_.size() <= all_pairs_peers_max ? best_of_all(a) : best_move(a);
      if (move.kind == Kind::none || move.gained <= 0) continue;
      apply_and_await(move);
    }
  }

  void apply_and_await(const RingMove& move) {
    for (const auto place : {0u, move.x, move.y}) {
      const auto peer = tour_.peer_at(move.a, place);
      await(tour_.previous(peer));
      await(peer);
      await(tour_.next(peer));
    }
    await(move.a);
    apply(move);
  }

  // A random exchange of two short stretches.
  void kick() {
    const auto n = tour_.size();
    const auto length = std::min(kick_length_max, n / 3);
    RingMove move{Kind::exchange, random(n), 1 + random(length), 0, 0};
    move.y = std::min(move.x + random(length), n - 2);
    apply_and_await(move);
  }

  bool holds() const { return tour_.cost() < RingTour::penalty; }  // no link is below the floor

  // The least sum of round trips; no link goes below the floor.
  void shorten(std::uint32_t floor) {
    tour_.set_floor(floor);
    awaits_.assign(tour_.size(), false);
    for (std::uint32_t peer = 0; peer < tour_.size(); ++peer) await(peer);
    descend();
    auto best = tour_.order(), base = best;  // equals may take the base's place, never the best one's
    auto least = tour_.cost();
    for (std::uint32_t vain = 0; vain < kicks_in_vain_max(tour_.size()) && !spent(); ++vain) {
      kick();
      descend();
      if (tour_.cost() > least) {
        work_ += tour_.size();
        tour_.set(base);
        continue;
      }
      base = tour_.order();
      if (tour_.cost() == least) continue;
      least = tour_.cost();
      best = base;
      vain = 0;
    }
    tour_.set(best);
  }

  const RingGraph& graph_;
  RingTour tour_;
  Rng rng_;
  std::uint64_t work_ = 0, work_max_;
  std::uint32_t bound_;
  NearPeers near_;
  std::vector<std::uint32_t> waiting_;
  std::vector<bool> awaits_;
};

}  // namespace

RingOrder search_ring(const RingGraph& graph, const RingOrder& current, const RingOptions& options) {
  auto order = RingSearch(graph, options).search(current, options.slack_percent);
  std::ranges::rotate(order, std::ranges::find(order, 0u));
  return order;
}

}  // namespace pccl
