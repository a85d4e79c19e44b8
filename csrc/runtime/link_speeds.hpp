// What operations show of the speed of this peer's links. Owned by the I/O thread, which tells whenever a
// link takes no more, or has nothing to carry.
#pragma once
#include <map>
#include <vector>

#include "runtime/links.hpp"
#include "runtime/send_meter.hpp"

namespace pccl {

// The shortest round trip that the kernel saw on the way to a peer; 0: none yet.
std::uint32_t round_trip_us(Links& links, PeerId peer);

class LinkSpeeds {
 public:
  explicit LinkSpeeds(Links& links) : links_(links) {}

  bool due(PeerId peer, Instant now) const;  // is it worth telling that it is full?
  void full(PeerId peer, Instant now);
  void ran_dry(PeerId peer);
  void sends(PeerId peer);
  void forget(PeerId peer) { meters_.erase(peer); }

  // Links that were kept full for long enough since they were last asked about, each once. Where several were
  // full they may have shared a line: then each is at least so fast.
  std::vector<MeasuredLink> take();

 private:
  Links& links_;
  std::map<PeerId, SendMeter> meters_;
};

}  // namespace pccl
