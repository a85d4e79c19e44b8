#include "protocol/link_matrix.hpp"

#include <algorithm>

namespace pccl {

namespace {

// Of one peer; beyond it the link heard of least recently goes. Nobody probes thousands of links, and a table
// of all pairs of thousands of peers would not fit.
constexpr std::size_t links_known_max = 256;
// Faster and slower than any network; products with the weights below stay within 64 bits.
constexpr std::uint64_t bandwidth_max = std::uint64_t{1} << 50;
constexpr Duration rtt_max = 4 * second;
// Conditions of shared networks change within minutes.
constexpr Duration half_life = 120 * second;
constexpr std::uint64_t whole = 16;

std::uint64_t weight_of(Evidence evidence) { return evidence == Evidence::probe ? whole / 2 : whole / 4; }

std::uint64_t average(std::uint64_t known, std::uint64_t sample, std::uint64_t weight, Duration age) {
  if (known == 0) return sample;
  const auto halvings = std::clamp<Duration>(age / half_life, 0, 63);
  const auto keep = (whole - weight) >> halvings;
  return (known * keep + sample * weight) / (keep + weight);
}

auto position_of(std::vector<LinkMatrix::Entry>& row, PeerId to) {
  return std::lower_bound(row.begin(), row.end(), to, [](const auto& e, PeerId peer) { return e.to < peer; });
}

Instant heard_at(const LinkMatrix::Entry& entry) { return std::max(entry.bandwidth_at, entry.rtt_at); }

void update(LinkMatrix::Entry& entry, const LinkSample& sample, Instant now) {
  const auto weight = weight_of(sample.evidence);
  const auto bandwidth = std::min(sample.measured.bandwidth, bandwidth_max);
  // "At least this fast" about a link that nobody measured would make it look slower than it may be.
  const bool counts = sample.evidence != Evidence::at_least ||
                      (entry.link.bandwidth != 0 && bandwidth > entry.link.bandwidth);
  if (bandwidth != 0 && counts) {
    entry.link.bandwidth = average(entry.link.bandwidth, bandwidth, weight, now - entry.bandwidth_at);
    entry.bandwidth_at = now;
  }
  if (sample.measured.rtt > 0) {
    const auto rtt = std::uint64_t(std::min(sample.measured.rtt, rtt_max));
    entry.link.rtt = Duration(average(std::uint64_t(entry.link.rtt), rtt, weight, now - entry.rtt_at));
    entry.rtt_at = now;
  }
}

}  // namespace

void LinkMatrix::learn(PeerId from, PeerId to, const LinkSample& sample, Instant now) {
  if (from == to || from == no_peer || to == no_peer) return;
  auto& row = rows_[from];
  if (const auto it = position_of(row, to); it != row.end() && it->to == to) return update(*it, sample, now);
  Entry entry{.to = to, .link = {}};
  update(entry, sample, now);
  if (entry.link == Link{}) return;
  row.insert(position_of(row, to), entry);
  if (row.size() > links_known_max) row.erase(std::ranges::min_element(row, {}, heard_at));
}

void LinkMatrix::assume(PeerId from, PeerId to, const Link& link) {
  auto& row = rows_[from];
  if (const auto it = position_of(row, to); it != row.end() && it->to == to)
    it->link = link;
  else
    row.insert(it, Entry{.to = to, .link = link});
}

void LinkMatrix::forget(PeerId peer) {
  rows_.erase(peer);
  for (auto& [from, row] : rows_)
    if (const auto it = position_of(row, peer); it != row.end() && it->to == peer) row.erase(it);
}

Link LinkMatrix::at(PeerId from, PeerId to) const {
  const auto known = row(from);
  const auto it = std::ranges::lower_bound(known, to, {}, &Entry::to);
  return it == known.end() || it->to != to ? Link{} : it->link;
}

std::span<const LinkMatrix::Entry> LinkMatrix::row(PeerId from) const {
  const auto it = rows_.find(from);
  if (it == rows_.end()) return {};
  return it->second;
}

}  // namespace pccl
