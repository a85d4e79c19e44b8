// Values that several control messages carry, each a list of fields like the messages themselves.
#pragma once
#include <array>

#include "base/limits.hpp"
#include "base/result.hpp"
#include "wire/types.hpp"

namespace pccl {

inline constexpr std::uint16_t protocol_version = 6;
enum class MessageId : std::uint8_t {
  join = 1,
  register_ = 2,
  heartbeat = 3,
  reachable = 4,
  done = 5,
  broken = 6,
  link_lost = 7,
  waiting = 8,
  enter_boundary = 9,
  abandon = 10,
  leave = 11,
  state_offer = 12,
  link_report = 13,
  probed = 14,
  figures = 15,
  welcome = 32,
  refused = 33,
  prove = 34,
  view = 35,
  commit = 36,
  failed = 37,
  passed = 38,
  evicted = 39,
  missing = 40,
  pulse = 41,
  state_plan = 42,
  suspended = 43,
  probe = 44,
  link_hello = 64,
  ready = 65,
  block_request = 66,
  block_failed = 67,
  stripe_lost = 70,
  received = 71,
  host_hello = 80,
  host_answer = 81,
  segment_at = 82,
  segment_gone = 83,
  chunk_at = 84,
  chunks_taken = 85,
  block_at = 86,
};

using Digest = std::array<std::uint8_t, 16>;

struct TensorShape {
  DType dtype = DType::float32;
  std::uint64_t count = 0;
  bool operator==(const TensorShape&) const = default;
  template <class V> void fields(V&& v) { v(dtype), v(count); }
};

// What an operation is. Two peers that differ in any field cannot reduce together.
struct Descriptor {
  Call call = Call::barrier;
  ReduceOp op = ReduceOp::sum;
  Algorithm algorithm = Algorithm::automatic;
  OnLoss on_loss = OnLoss::retry;
  bool weighted = false;
  Quantization quantization = Quantization::none;
  std::uint32_t quantization_block = 0;
  bool stochastic = false;   // rounding of what is quantized
  bool skips = false;        // who brings what is not finite counts for nothing; weighted then
  PeerId root = no_peer;     // of a broadcast, gather or scatter
  std::uint32_t blocks = 0;  // of a call in blocks: peers that its tensors are made for; they count one block
  std::uint64_t sums = 0;    // of a coded reduce: the fingerprint of what is to be summed up
  std::uint32_t chunk_bytes = 0;
  std::vector<TensorShape> tensors;
  bool operator==(const Descriptor&) const = default;
  template <class V> void fields(V&& v) {
    v(call), v(op), v(algorithm), v(on_loss), v(weighted), v(quantization), v(quantization_block),
        v(stochastic), v(skips), v(root), v(blocks), v(sums), v(chunk_bytes), v(tensors, limits::tensors_max);
  }
};

// An operation that a peer has open: `held` when it holds the result and waits for the verdict.
struct OpenOperation {
  OpKey key;
  ViewId view;
  bool held = false;
  bool operator==(const OpenOperation&) const = default;
  template <class V> void fields(V&& v) { v(key), v(view), v(held); }
};

// The fate of an operation: committed, with what everybody must repeat about it, or failed for all.
struct Verdict {
  OpKey key;
  ViewId view;
  ErrorCode code = ErrorCode::none;  // none: committed
  std::uint32_t waiting = 0;         // islands at the door, fixed by the first commit
  bool view_due = false;             // the next boundary brings a new view, even if nobody waits; fixed, too
  std::vector<PeerId> contributors;  // of the receiver's group; empty: the members of `view`
  std::string text;
  bool operator==(const Verdict&) const = default;
  template <class V> void fields(V&& v) {
    v(key), v(view), v(code), v(waiting), v(view_due), v(contributors, limits::members_max),
        v(text, limits::text_bytes_max);
  }
};

// A data link as its sender measured it. 0: not measured.
struct MeasuredLink {
  PeerId to = no_peer;
  std::uint64_t bandwidth = 0;  // bytes per second
  std::uint32_t rtt_us = 0;
  Evidence evidence = Evidence::transfer;  // about the bandwidth
  bool operator==(const MeasuredLink&) const = default;
  template <class V> void fields(V&& v) { v(to), v(bandwidth), v(rtt_us), v(evidence); }
};

// One link of an attempt as one of its ends sees it while a caller waits.
struct LinkState {
  static constexpr std::uint32_t not_yet = ~std::uint32_t{0};
  OpKey key;
  PeerId peer = no_peer;  // the other end
  bool came = false;      // it has come to the call: it, or data of it, said so
  bool source = false;    // data comes from it
  bool to_send = false;   // there is more for it than the link takes
  std::uint64_t sent = 0, received = 0;
  std::uint64_t queued = 0;   // sent, and not taken by its kernel yet
  std::uint64_t unread = 0;   // of all that came from it: still in the kernel here
  std::uint32_t offered = 0;  // chunks that it may read where they lie, on one host, and has not
  std::uint32_t full_ms = 0;  // the link took no more for so long
  std::uint32_t sent_ago_ms = not_yet, received_ago_ms = not_yet;
  bool operator==(const LinkState&) const = default;
  template <class V> void fields(V&& v) {
    v(key), v(peer), v(came), v(source), v(to_send), v(sent), v(received), v(queued), v(unread), v(offered),
        v(full_ms), v(sent_ago_ms), v(received_ago_ms);
  }
};

// A number that a peer shows of itself, for people.
struct Figure {
  std::string name;
  std::uint64_t bits = 0;  // of a double
  bool operator==(const Figure&) const = default;
  template <class V> void fields(V&& v) { v(name, limits::name_bytes_max), v(bits); }
};

// Who keeps others waiting in an operation, and how.
struct Hindrance {
  PeerId peer = no_peer;
  Trouble trouble = Trouble::late;
  PeerId other = no_peer;         // of a link
  Call call = Call::barrier;      // that it waits in, elsewhere
  std::uint32_t since_ms = 0;     // 0: not known
  std::uint64_t bytes_per_s = 0;  // of a slow way
  bool operator==(const Hindrance&) const = default;
  template <class V> void fields(V&& v) {
    v(peer), v(trouble), v(other), v(call), v(since_ms), v(bytes_per_s);
  }
};

// One tensor of a shared state as a peer holds it.
struct StateEntry {
  std::string name;
  DType dtype = DType::float32;
  std::uint64_t count = 0;
  Digest root{};
  bool operator==(const StateEntry&) const = default;
  template <class V> void fields(V&& v) { v(name, limits::name_bytes_max), v(dtype), v(count), v(root); }
};

}  // namespace pccl
