// Errors are values: what went wrong (a code that Python maps to an exception), and a text that says who and
// what to do.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <variant>

namespace pccl {

// The numbers travel in FAILED and EVICTED messages: append only.
enum class ErrorCode : std::uint8_t {
  none = 0,
  usage = 1,             // the caller's arguments are wrong
  connect = 2,           // nobody, or somebody else, answers at the address
  authentication = 3,    // the secrets differ
  version = 4,           // the other side speaks another version of the protocol
  refused = 5,           // the master turned us away, with a reason
  mismatch = 6,          // two peers describe one operation differently
  order = 7,             // peers wait in calls that can never meet
  timeout = 8,           // the caller's time was over
  cancelled = 9,         // some peer cancelled the operation
  peer_lost = 10,        // a peer left during an operation that must not be retried
  master_lost = 11,      // the master does not answer
  evicted = 12,          // the run goes on without us
  outcome_unknown = 13,  // we hold a result whose fate we cannot learn
  no_quorum = 14,        // a restarted master heard too few of the last view
  protocol = 15,         // bytes that no honest peer sends
  closed = 16,           // the communicator was closed
  internal = 17,         // our own logic broke
  non_finite = 18,       // a value that cannot be quantized
  checkpoint = 19,       // the disk refused, or its space is over
  damaged = 20,          // a file is not what was written, or is gone
};
inline constexpr std::uint8_t error_code_last = 20;

struct Error {
  ErrorCode code = ErrorCode::none;
  std::string text;
  explicit operator bool() const { return code != ErrorCode::none; }
};

template <class T> class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}
  explicit operator bool() const { return state_.index() == 0; }
  T& value() { return std::get<0>(state_); }
  const T& value() const { return std::get<0>(state_); }
  const Error& error() const { return std::get<1>(state_); }
  T* operator->() { return &value(); }
  T& operator*() { return value(); }

 private:
  std::variant<T, Error> state_;
};

}  // namespace pccl
