// What one operation has moved over each of its links, and when. Owned by the I/O thread.
#pragma once
#include <algorithm>
#include <vector>

#include "base/clock.hpp"
#include "wire/types.hpp"

namespace pccl {

struct Flow {
  PeerId peer = no_peer;
  std::uint64_t sent = 0, received = 0;
  Instant first_sent = 0, last_sent = 0, first_received = 0, last_received = 0;  // 0: nothing yet
  Duration full_before = 0;  // of the link, when the first byte left
};

class Flows {
 public:
  Flow& at(PeerId peer) {
    const auto it = std::ranges::lower_bound(all_, peer, {}, &Flow::peer);
    if (it != all_.end() && it->peer == peer) return *it;
    return *all_.insert(it, Flow{peer});
  }
  const std::vector<Flow>& all() const { return all_; }
  void clear() { all_.clear(); }

 private:
  std::vector<Flow> all_;  // by peer
};

// How long a link took no more while there was something to send.
class FullTime {
 public:
  void full(Instant now) { since_ = since_ == 0 ? now : since_; }
  bool is_full() const { return since_ != 0; }
  void takes(Instant now) {
    total_ += now - since_;
    since_ = 0;
  }
  Duration now_for(Instant now) const { return since_ == 0 ? 0 : std::max<Duration>(now - since_, 0); }
  Duration total(Instant now) const { return total_ + now_for(now); }

 private:
  Instant since_ = 0;
  Duration total_ = 0;
};

}  // namespace pccl
