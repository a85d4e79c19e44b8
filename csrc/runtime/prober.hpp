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

  explicit Prober(Links& links) : links_(links) {}

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
  std::uint64_t confirmed(std::uint64_t* under_way);

  Links& links_;
  PeerId peer_ = no_peer;
  std::uint32_t round_ = 0;
  ProbeRate rate_;
  Duration rtt_ = 0;
  Instant next_at_ = never, drained_by_ = never;  // never: it is still sending
};

}  // namespace pccl
