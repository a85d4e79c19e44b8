// Measures the link to one peer: keeps all its stripes full for a while, and watches what the other side
// confirms. Owned by the I/O thread, while no operation runs.
#pragma once
#include <optional>

#include "runtime/links.hpp"
#include "runtime/probe_rate.hpp"

namespace pccl {

class Prober {
 public:
  static constexpr std::uint64_t token = UINT64_MAX;  // of its payloads, which are nobody's memory

  // `woken`: where it leaves room behind, for what others send.
  Prober(Links& links, std::vector<PeerId>& woken) : links_(links), woken_(woken) {}

  void begin(PeerId peer, std::uint32_t round, Duration time, Instant now);  // calls an older one off
  void top_up();                                                             // a payload has left
  void stop();
  bool active() const { return peer_ != no_peer; }
  Instant next_deadline() const { return next_at_; }

  struct Result {
    std::uint32_t round = 0;
    MeasuredLink link;
  };
  std::optional<Result> tick(Instant now);  // once it is over, and what was under way has arrived

 private:
  void make_room();
  std::uint64_t confirmed(std::uint64_t* under_way);

  Links& links_;
  std::vector<PeerId>& woken_;
  PeerId peer_ = no_peer;
  std::uint32_t round_ = 0;
  ProbeRate rate_;
  Duration rtt_ = 0;
  Instant next_at_ = never, drained_by_ = never;  // never: it is still sending
};

}  // namespace pccl
