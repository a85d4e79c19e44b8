#include "protocol/member_index.hpp"

#include <algorithm>

namespace pccl {

void MemberIndex::rebuild(const View& view) {
  by_peer_.clear();
  groups_.clear();
  all_.clear();
  islands_.clear();
  for (const auto& m : view.members) {
    by_peer_.emplace_back(m.peer, &m);
    islands_.insert(m.island);
    groups_[m.group].push_back(m.peer);
    all_.push_back(m.peer);
  }
  std::sort(by_peer_.begin(), by_peer_.end());
}

const Member* MemberIndex::find(PeerId peer) const {
  const auto it = std::lower_bound(by_peer_.begin(), by_peer_.end(), peer,
                                   [](const auto& entry, PeerId id) { return entry.first < id; });
  return it != by_peer_.end() && it->first == peer ? it->second : nullptr;
}

const std::vector<PeerId>& MemberIndex::group(std::uint32_t group) const {
  static const std::vector<PeerId> nobody;
  const auto it = groups_.find(group);
  return it == groups_.end() ? nobody : it->second;
}

Concerned MemberIndex::concerned(const OpKey& key) const {
  if (key.scope != Scope::pair) return Concerned(key.scope == Scope::run ? &all_ : &group(key.group));
  std::vector<PeerId> pair;
  for (const auto peer : {key.from, key.to})
    if (concerns(key, peer)) pair.push_back(peer);
  return Concerned(std::move(pair));
}

std::vector<PeerId> MemberIndex::absent(const std::set<PeerId>& present, std::size_t most) const {
  std::vector<PeerId> missing;
  for (const auto peer : all_)
    if (!present.contains(peer) && missing.size() < most) missing.push_back(peer);
  return missing;
}

bool MemberIndex::concerns(const OpKey& key, PeerId peer) const {
  const auto* m = find(peer);
  if (m == nullptr) return false;
  if (key.scope == Scope::pair) return key.names(peer) && key.from != key.to && key.group == 0;
  if (key.from != no_peer || key.to != no_peer) return false;
  return key.group == (key.scope == Scope::run ? 0 : m->group);
}

std::size_t MemberIndex::largest_group() const {
  std::size_t most = 0;
  for (const auto& [group, peers] : groups_) most = std::max(most, peers.size());
  return most;
}

}  // namespace pccl
