// What the pure parts want done. The runtime does it with sockets and threads, the simulator with queues, in
// order.
#pragma once
#include <string>
#include <variant>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "wire/messages.hpp"

namespace pccl {

// How an operation ended, for its caller.
struct Outcome {
  Error error;                       // none: committed
  std::vector<PeerId> contributors;  // of the caller's group
  std::uint32_t waiting = 0;         // islands at the door when it committed
  std::uint32_t attempts = 0;
};

namespace effect {
struct SendMaster {
  ToMaster message;
};
struct ReconnectMaster {};  // the connection is silent: drop it and dial again
struct Dial {
  PeerId peer;
  std::vector<Address> addresses;
};
struct HangUp {
  PeerId peer;
};
struct DropAttempt {
  OpKey key;
};  // leave the caller's memory alone, restore the input
struct StartAttempt {
  OpKey key;
};  // in the session's view
struct FailedEarly {
  OpKey key;
};  // before this peer came to it: what others sent for it is of no use
struct ViewChanged {};
struct Deliver {
  OpKey key;
  Outcome outcome;
};
struct Elected {
  StatePlan plan;
};
struct Admitted {};
struct BoundaryPassed {
  bool skipped;
};
struct BoundaryFailed {
  Error why;
};
struct Gone {
  Error why;
};  // the session is over; `closed`: it left politely
struct Probe {
  PeerId peer;
  std::uint32_t round;
  Duration time;
};  // keep the link full for about so long, then Session::probed(); a new view or Probe calls it off
struct Notice {
  std::string text;
};  // one line for people
}  // namespace effect

using Effect =
    std::variant<effect::SendMaster, effect::ReconnectMaster, effect::Dial, effect::HangUp,
                 effect::DropAttempt, effect::StartAttempt, effect::FailedEarly, effect::ViewChanged,
                 effect::Deliver, effect::Elected, effect::Admitted, effect::BoundaryPassed,
                 effect::BoundaryFailed, effect::Gone, effect::Probe, effect::Notice>;
using Effects = std::vector<Effect>;

// The master's side. A connection is named by its runtime; a peer may come on several, one after the other.
using ConnectionId = std::uint64_t;
inline constexpr ConnectionId no_connection = 0;

namespace master_effect {
struct Send {
  ConnectionId to;
  ToPeer message;
};
struct Close {
  ConnectionId connection;
};  // after what was sent has left
struct Knock {  // does anybody still listen there? on_refused() where every address refuses
  PeerId peer;
  std::vector<Address> addresses;
};
struct Persist {
  std::uint32_t incarnation;
  View view;
};  // before the effects behind it
struct Notice {
  std::string text;
};
}  // namespace master_effect

using MasterEffect = std::variant<master_effect::Send, master_effect::Close, master_effect::Knock,
                                  master_effect::Persist, master_effect::Notice>;
using MasterEffects = std::vector<MasterEffect>;

}  // namespace pccl
