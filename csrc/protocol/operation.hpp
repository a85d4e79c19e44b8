// One operation as a peer's session sees it: posted, running or held in a view, then delivered. Data is not
// its business.
#pragma once
#include <optional>

#include "base/clock.hpp"
#include "wire/messages.hpp"

namespace pccl {

enum class OperationState : std::uint8_t {
  posted,     // waits for a view to start in
  running,    // an attempt moves data
  held,       // the attempt is complete and DONE is said: result and input are kept until COMMIT or VIEW
  abandoned,  // this peer asked for failure and waits for the verdict
};

struct Operation {
  OpKey key;
  Descriptor descriptor;
  std::uint32_t peers = 0;  // that the caller counts on; 0: any number
  OperationState state = OperationState::posted;
  bool held_when_abandoned = false;
  bool attempt_live = false;  // the data plane works on it, or keeps its result
  ViewId view;                // of the attempt
  std::uint32_t attempts = 0;
  std::uint64_t moved = 0;  // chunks and blocks that came in this attempt
  std::uint64_t posted_order = 0;
  Instant posted_at = 0;
  Instant deadline = never;    // the caller's time-out
  Instant verdict_by = never;  // when abandoned
  Instant notice_at = never;   // tell who is missing
  Abandon abandon;             // what was asked, to ask again
  std::optional<StateOffer> offer;
  std::vector<PeerId> missing;  // as the master last told
  std::vector<Hindrance> hindrances;
};

inline std::string call_text(const Operation& operation) {
  return std::string(name(operation.descriptor.call)) + ", " + describe(operation.key);
}

constexpr bool legal(OperationState from, OperationState to) {
  using S = OperationState;
  switch (from) {
    case S::posted:
      return to == S::running || to == S::abandoned;
    case S::running:
      return to == S::held || to == S::posted || to == S::abandoned;
    case S::held:
      return to == S::posted || to == S::abandoned;
    case S::abandoned:
      return false;
  }
  return false;
}

}  // namespace pccl
