#include "protocol/election.hpp"

#include <algorithm>
#include <tuple>

namespace pccl {

namespace {

Error differ(PeerId a, PeerId b, const std::string& what) {
  return {ErrorCode::mismatch, "sync_shared_state: peers " + std::to_string(a) + " and " + std::to_string(b) +
                                   " differ in " + what};
}

// Names, dtypes and sizes must be the same on all peers; content may differ. The first difference tells most.
Error compare_layouts(PeerId a, const StateOffer& left, PeerId b, const StateOffer& right) {
  for (std::size_t i = 0; i < std::min(left.entries.size(), right.entries.size()); ++i) {
    const auto &l = left.entries[i], &r = right.entries[i];
    if (l.name != r.name) return differ(a, b, "names: '" + l.name + "' and '" + r.name + "'");
    if (l.dtype != r.dtype || l.count != r.count)
      return differ(a, b,
                    "'" + l.name + "': " + std::to_string(l.count) + " x " + std::string(name(l.dtype)) +
                        " and " + std::to_string(r.count) + " x " + std::string(name(r.dtype)));
  }
  if (left.entries.size() != right.entries.size())
    return differ(a, b,
                  "the number of tensors: " + std::to_string(left.entries.size()) + " and " +
                      std::to_string(right.entries.size()));
  return {};
}

// Whose content may be elected: of those that only send where there are such, of none that only receive.
bool may_win(const StateOffer& offer, const std::map<PeerId, StateOffer>& offers) {
  const bool any_sender = std::any_of(offers.begin(), offers.end(), [](const auto& entry) {
    return entry.second.strategy == Strategy::send_only;
  });
  return any_sender ? offer.strategy == Strategy::send_only : offer.strategy != Strategy::receive_only;
}

// The newest revision that may win, and who holds it first.
std::pair<std::uint64_t, PeerId> newest(const std::map<PeerId, StateOffer>& offers) {
  std::pair<std::uint64_t, PeerId> found{0, no_peer};
  for (const auto& [peer, offer] : offers)
    if (may_win(offer, offers) && (found.second == no_peer || offer.revision > found.first))
      found = {offer.revision, peer};
  return found;
}

// What one island offers: a content for each group that it has a rank in, taken as a whole or not at all.
struct Candidate {
  std::map<std::uint32_t, PeerId> ranks;  // by group
  std::uint64_t revision = 0;
  PeerId first = no_peer;
  std::size_t alike = 0;  // candidates with the same revision, groups and content
  bool eligible = true;
};

// Layouts are equal: the roots alone tell contents apart.
using Content = std::vector<std::pair<std::uint32_t, Digest>>;
Content content_of(const Candidate& candidate, const OffersByGroup& offers) {
  Content roots;
  for (const auto& [group, peer] : candidate.ranks)
    for (const auto& entry : offers.at(group).at(peer).entries) roots.emplace_back(group, entry.root);
  return roots;
}

// Several ranks of one island in one group, which nobody is asked to have, count as islands.
std::vector<Candidate> candidates_of(const OffersByGroup& all, const IslandOf& island_of) {
  std::map<std::pair<std::string, std::size_t>, Candidate> found;
  for (const auto& [group, offers] : all) {
    std::map<std::string, std::size_t> seen;
    for (const auto& [peer, offer] : offers) {
      const auto island = island_of(peer);
      auto& candidate = found[{island, seen[island]++}];
      const bool first = candidate.ranks.empty();
      if (first) candidate.revision = offer.revision;
      candidate.first = first ? peer : std::min(candidate.first, peer);
      // Ranks of two revisions: one was given the newer content, and who gave it died before the other was.
      candidate.eligible &= may_win(offer, offers) && offer.revision == candidate.revision;
      candidate.ranks[group] = peer;
    }
  }
  std::vector<Candidate> eligible;
  for (auto& [key, candidate] : found)
    if (candidate.eligible) eligible.push_back(std::move(candidate));
  return eligible;
}

// The best first: the newest, then the most popular, then the one with the smallest peer id.
void rank_candidates(std::vector<Candidate>& candidates, const OffersByGroup& offers) {
  std::map<std::pair<std::uint64_t, Content>, std::size_t> alike;
  for (const auto& each : candidates) ++alike[{each.revision, content_of(each, offers)}];
  for (auto& each : candidates) each.alike = alike[{each.revision, content_of(each, offers)}];
  std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
    return std::tuple(b.revision, b.alike, a.first) < std::tuple(a.revision, a.alike, b.first);
  });
}

// The content of `winner`, and who gives what of it.
Election of_winner(PeerId winner, std::uint64_t revision, const std::map<PeerId, StateOffer>& offers) {
  Election election{revision, {}, winner};
  const auto& content = offers.at(winner);
  for (std::size_t i = 0; i < content.entries.size(); ++i) {
    ElectedEntry entry{content.entries[i], {winner}};
    for (const auto& [peer, offer] : offers)
      if (peer != winner && offer.entries[i].root == entry.entry.root &&
          entry.donors.size() < limits::peers_named_max)
        entry.donors.push_back(peer);
    election.entries.push_back(std::move(entry));
  }
  return election;
}

Error check_offers(const std::map<PeerId, StateOffer>& offers) {
  const auto& [first_peer, first] = *offers.begin();
  bool any_voter = false;
  for (const auto& [peer, offer] : offers) {
    if (auto error = compare_layouts(first_peer, first, peer, offer)) return error;
    any_voter |= offer.strategy != Strategy::receive_only;
  }
  if (any_voter) return {};
  return {ErrorCode::mismatch, "sync_shared_state: every peer is receive_only, so nobody has the content"};
}

}  // namespace

Outsiders outsiders_of(const std::map<PeerId, StateOffer>& offers) {
  Outsiders outsiders;
  const auto [revision, holder] = newest(offers);
  if (holder == no_peer) return {};
  for (const auto& [peer, offer] : offers) {
    const auto error = compare_layouts(holder, offers.at(holder), peer, offer);
    if (!error) continue;
    if (offer.revision >= revision) return {};
    outsiders.peers.push_back(peer);
    if (outsiders.why.empty()) outsiders.why = error.text + "; the run goes on with the newer one";
  }
  // One that claims to be newer than everybody else does not end their run.
  return 2 * outsiders.peers.size() <= offers.size() ? outsiders : Outsiders{};
}

Result<std::map<std::uint32_t, Election>> elect_islands(const OffersByGroup& all, const IslandOf& island_of) {
  for (const auto& [group, offers] : all)
    if (auto error = check_offers(offers)) return error;
  auto candidates = candidates_of(all, island_of);
  rank_candidates(candidates, all);
  std::map<std::uint32_t, Election> elected;
  for (const auto& candidate : candidates)
    for (const auto& [group, peer] : candidate.ranks)
      if (!elected.contains(group))
        elected.emplace(group, of_winner(peer, candidate.revision, all.at(group)));
  if (elected.size() == all.size()) return elected;
  return Error{
      ErrorCode::mismatch,
      "sync_shared_state: no island has the whole content: in each, some rank is receive_only, or of "
      "another revision than its siblings"};
}

Result<Election> elect(const std::map<PeerId, StateOffer>& offers) {
  auto elected = elect_islands({{0, offers}}, [](PeerId peer) { return std::to_string(peer); });
  if (!elected) return elected.error();
  return std::move(elected->begin()->second);
}

}  // namespace pccl
