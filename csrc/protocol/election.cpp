#include "protocol/election.hpp"

#include <algorithm>

namespace pccl {

namespace {

Error differ(PeerId a, PeerId b, const std::string& what) {
  return {ErrorCode::mismatch, "sync_shared_state: peers " + std::to_string(a) + " and " + std::to_string(b) +
                                   " differ in " + what};
}

// Names, dtypes and sizes must be the same on all peers; content may differ.
Error compare_layouts(PeerId a, const StateOffer& left, PeerId b, const StateOffer& right) {
  if (left.entries.size() != right.entries.size())
    return differ(a, b,
                  "the number of tensors: " + std::to_string(left.entries.size()) + " and " +
                      std::to_string(right.entries.size()));
  for (std::size_t i = 0; i < left.entries.size(); ++i) {
    const auto &l = left.entries[i], &r = right.entries[i];
    if (l.name != r.name) return differ(a, b, "names: '" + l.name + "' and '" + r.name + "'");
    if (l.dtype != r.dtype || l.count != r.count)
      return differ(a, b,
                    "'" + l.name + "': " + std::to_string(l.count) + " x " + std::string(name(l.dtype)) +
                        " and " + std::to_string(r.count) + " x " + std::string(name(r.dtype)));
  }
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

// Layouts are equal: the roots alone tell contents apart.
std::vector<Digest> content_of(const StateOffer& offer) {
  std::vector<Digest> roots;
  for (const auto& entry : offer.entries) roots.push_back(entry.root);
  return roots;
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

Result<Election> elect(const std::map<PeerId, StateOffer>& offers) {
  const auto& [first_peer, first] = *offers.begin();
  bool any_voter = false;
  for (const auto& [peer, offer] : offers) {
    if (auto error = compare_layouts(first_peer, first, peer, offer)) return error;
    any_voter |= offer.strategy != Strategy::receive_only;
  }
  if (!any_voter)
    return Error{ErrorCode::mismatch,
                 "sync_shared_state: every peer is receive_only, so nobody has the content"};
  std::uint64_t revision = 0;
  for (const auto& [peer, offer] : offers)
    if (may_win(offer, offers)) revision = std::max(revision, offer.revision);
  std::map<std::vector<Digest>, std::vector<PeerId>> holders;  // ascending ids
  for (const auto& [peer, offer] : offers)
    if (may_win(offer, offers) && offer.revision == revision) holders[content_of(offer)].push_back(peer);
  const auto& chosen =
      std::max_element(holders.begin(), holders.end(), [](const auto& a, const auto& b) {
        return std::pair(a.second.size(), b.second.front()) < std::pair(b.second.size(), a.second.front());
      })->second;
  const auto winner = chosen.front();
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

}  // namespace pccl
