// "All of a set said X, and who is missing": the one way in which the master counts. Who may vote is the
// master's to check before; then a count says whether all have.
#pragma once
#include <algorithm>
#include <set>
#include <vector>

#include "wire/types.hpp"

namespace pccl {

class Ballot {
 public:
  void vote(PeerId peer) { votes_.insert(peer); }
  void withdraw(PeerId peer) { votes_.erase(peer); }
  bool has(PeerId peer) const { return votes_.contains(peer); }
  bool empty() const { return votes_.empty(); }
  std::size_t count() const { return votes_.size(); }
  void clear() { votes_.clear(); }
  bool complete(const std::vector<PeerId>& voters) const {
    return std::all_of(voters.begin(), voters.end(), [&](PeerId peer) { return has(peer); });
  }
  std::vector<PeerId> missing(const std::vector<PeerId>& voters) const {
    std::vector<PeerId> absent;
    std::copy_if(voters.begin(), voters.end(), std::back_inserter(absent),
                 [&](PeerId peer) { return !has(peer); });
    return absent;
  }

 private:
  std::set<PeerId> votes_;
};

}  // namespace pccl
