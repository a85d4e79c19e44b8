// Why peers are in the run no more, for those that ask later: the newest of them.
#pragma once
#include <deque>
#include <string>
#include <unordered_map>

#include "base/limits.hpp"
#include "wire/types.hpp"

namespace pccl {

class Departures {
 public:
  void note(PeerId peer, const std::string& why) {
    if (!why_.emplace(peer, why.substr(0, limits::reason_bytes_max)).second) return;
    order_.push_back(peer);
    if (order_.size() <= limits::departures_max) return;
    why_.erase(order_.front());
    order_.pop_front();
  }
  // Empty: it is not known, or not any more.
  std::string why(PeerId peer) const {
    const auto it = why_.find(peer);
    return it == why_.end() ? "" : it->second;
  }

 private:
  std::unordered_map<PeerId, std::string> why_;
  std::deque<PeerId> order_;  // of their going
};

}  // namespace pccl
