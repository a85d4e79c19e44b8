#include "protocol/ring_tour.hpp"

#include <algorithm>

namespace pccl {

void RingTour::set(std::vector<std::uint32_t> order) {
  order_ = std::move(order);
  const auto n = size();
  at_.resize(n);
  forth_.resize(n);
  back_.resize(n);
  for (std::uint32_t i = 0; i < n; ++i) {
    const auto here = order_[i], after = order_[i + 1 == n ? 0 : i + 1];
    at_[here] = i;
    forth_[i] = graph_.edge(here, after);
    back_[i] = graph_.edge(after, here);
  }
  sum_up();
}

void RingTour::set_floor(std::uint32_t rank, bool round_trips_count) {
  floor_ = rank;
  round_trips_ = round_trips_count ? UINT32_MAX : 0;
  sum_up();
}

void RingTour::sum_up() {
  along_.resize(size() + 1);
  against_.resize(size() + 1);
  for (std::uint32_t i = 0; i < size(); ++i) {
    along_[i + 1] = along_[i] + cost(forth_[i]);
    against_[i + 1] = against_[i] + cost(back_[i]);
  }
}

std::uint32_t RingTour::place(std::uint32_t a, std::uint32_t peer) const {
  const auto first = at_[a] + 1 == size() ? 0 : at_[a] + 1;
  return at_[peer] >= first ? at_[peer] - first : at_[peer] + size() - first;
}

std::uint32_t RingTour::peer_at(std::uint32_t a, std::uint32_t place) const {
  const auto position = at_[a] + 1 + place;
  return order_[position < size() ? position : position - size()];
}

std::int64_t RingTour::sum(const std::vector<std::int64_t>& sums, std::uint32_t begin,
                           std::uint32_t count) const {
  if (begin >= size()) begin -= size();
  const auto end = begin + count;
  if (end <= size()) return sums[end] - sums[begin];
  return sums[size()] - sums[begin] + sums[end - size()];
}

bool RingTour::evaluate(RingMove& move) const {
  const auto n = size();
  const bool within = move.x >= 1 && move.x + 2 <= n;
  switch (move.kind) {
    case RingMove::Kind::exchange:
      if (!within || move.y < move.x || move.y + 2 > n) return false;
      evaluate_exchange(move);
      return true;
    case RingMove::Kind::reverse_head:
      if (within) evaluate_reversal(move, 0, move.x);
      return within;
    case RingMove::Kind::reverse_tail:
      if (within) evaluate_reversal(move, move.x, n - 1);
      return within;
    case RingMove::Kind::none:
      break;
  }
  return false;
}

void RingTour::evaluate_exchange(RingMove& move) const {
  const auto a = move.a, b = next(a), d = peer_at(a, move.x), c = previous(d), e = peer_at(a, move.y),
             f = next(e);
  move.gained = cost(a, b) + cost(c, d) + cost(e, f) - cost(a, d) - cost(e, b) - cost(c, f);
}

// Turns round the places first..last, one end of which is an end of a -> b.
void RingTour::evaluate_reversal(RingMove& move, std::uint32_t first, std::uint32_t last) const {
  const auto a = move.a, head = peer_at(a, first), tail = peer_at(a, last), before = previous(head),
             after = next(tail);
  const auto begin = at_[a] + 1 + first, count = last - first;
  move.gained = cost(before, head) + sum(along_, begin, count) + cost(tail, after);
  move.gained -= cost(before, tail) + sum(against_, begin, count) + cost(head, after);
}

void RingTour::apply(const RingMove& move) {
  scratch_ = order_;
  std::ranges::rotate(scratch_, scratch_.begin() + std::ptrdiff_t((at_[move.a] + 1) % size()));
  const auto x = std::ptrdiff_t(move.x), y = std::ptrdiff_t(move.y);
  const auto begin = scratch_.begin();
  if (move.kind == RingMove::Kind::exchange) std::rotate(begin, begin + x, begin + y + 1);
  if (move.kind == RingMove::Kind::reverse_head) std::reverse(begin, begin + x + 1);
  if (move.kind == RingMove::Kind::reverse_tail) std::reverse(begin + x, scratch_.end());
  std::swap(order_, scratch_);
  set(std::move(order_));
}

RingTour::Worst RingTour::worst() const {
  Worst worst{UINT32_MAX, 0};
  for (std::uint32_t i = 0; i < size(); ++i)
    if (forth_[i].rank < worst.rank) worst = {forth_[i].rank, order_[i]};
  return worst;
}

}  // namespace pccl
