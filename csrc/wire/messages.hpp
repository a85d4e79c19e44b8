// THE protocol: every control message as a list of fields. Codec, bounds, fuzzers and printing are derived from it.
// peer -> master: Join .. StateOffer;  master -> peer: Welcome .. Suspended;  peer -> peer: LinkHello .. BlockFailed.
#pragma once
#include <array>
#include <variant>

#include "base/limits.hpp"
#include "base/result.hpp"
#include "wire/types.hpp"

namespace pccl {

inline constexpr std::uint16_t protocol_version = 1;
enum class MessageId : std::uint8_t {
  join = 1, register_ = 2, heartbeat = 3, reachable = 4, done = 5, broken = 6, link_lost = 7, waiting = 8,
  enter_boundary = 9, abandon = 10, leave = 11, state_offer = 12,
  welcome = 32, refused = 33, prove = 34, view = 35, commit = 36, failed = 37, passed = 38, evicted = 39,
  missing = 40, pulse = 41, state_plan = 42, suspended = 43,
  link_hello = 64, ready = 65, block_request = 66, block_failed = 67,
};

using Digest = std::array<std::uint8_t, 16>;

struct TensorShape {
  DType dtype = DType::float32;
  std::uint64_t count = 0;
  bool operator==(const TensorShape&) const = default;
  template <class V> void fields(V&& v) { v(dtype); v(count); }
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
  PeerId root = no_peer;  // of a broadcast
  std::uint32_t chunk_bytes = 0;
  std::vector<TensorShape> tensors;
  bool operator==(const Descriptor&) const = default;
  template <class V> void fields(V&& v) {
    v(call); v(op); v(algorithm); v(on_loss); v(weighted); v(quantization); v(quantization_block); v(root);
    v(chunk_bytes); v(tensors, limits::tensors_max);
  }
};

// ---- peer -> master --------------------------------------------------------------------------------------------

struct Join {  // asks to be let in; answered by Welcome or Refused
  static constexpr MessageId id{1};
  std::string island;  // empty: a plain peer, an island of one
  std::uint16_t island_rank = 0, island_size = 1;
  std::uint32_t group = 0;
  Role role = Role::trainer;
  std::uint32_t min_islands = 1;
  std::vector<Address> reachable_at;
  std::string host;  // where the peer says it runs, for messages to people
  std::uint32_t process = 0;
  template <class V> void fields(V&& v) {
    v(island, limits::name_bytes_max); v(island_rank); v(island_size); v(group); v(role); v(min_islands);
    v(reachable_at, limits::addresses_max); v(host, limits::name_bytes_max); v(process);
  }
};

// An operation that a peer has open: `held` when it holds the result and waits for the verdict.
struct OpenOperation {
  OpKey key;
  ViewId view;
  bool held = false;
  bool operator==(const OpenOperation&) const = default;
  template <class V> void fields(V&& v) { v(key); v(view); v(held); }
};

// The fate of an operation: committed, with what everybody must repeat about it, or failed for all.
struct Verdict {
  OpKey key;
  ViewId view;
  ErrorCode code = ErrorCode::none;       // none: committed
  std::uint32_t waiting = 0;              // islands at the door, fixed by the first commit
  std::vector<PeerId> contributors;       // of the receiver's group; empty: the members of `view`
  std::string text;
  bool operator==(const Verdict&) const = default;
  template <class V> void fields(V&& v) {
    v(key); v(view); v(code); v(waiting); v(contributors, limits::members_max); v(text, limits::text_bytes_max);
  }
};

// A known peer on a new control connection, to the same master or to its successor: all that it stands for.
struct Register {
  static constexpr MessageId id{2};
  PeerId peer = no_peer;
  std::uint64_t run = 0;
  View view;                               // the last view it was told; id 0.0: it still waits at the door
  std::uint32_t boundary_waiting = 0;      // number of the boundary that it waits at; 0: none
  std::uint32_t boundary_islands = 0;
  std::uint64_t verdicts_seen = 0;         // highest verdict index of the view's incarnation
  std::vector<OpenOperation> open;
  std::vector<Verdict> verdicts;           // those that some member may lack
  Join join;                               // as it once joined
  template <class V> void fields(V&& v) {
    v(peer); v(run); v(view); v(boundary_waiting); v(boundary_islands); v(verdicts_seen);
    v(open, limits::operations_open_max); v(verdicts, limits::records_max); v(join);
  }
};

struct Heartbeat {
  static constexpr MessageId id{3};
  std::uint64_t verdicts_seen = 0;
  template <class V> void fields(V&& v) { v(verdicts_seen); }
};

struct Reachable {  // answer to Prove: which links the joiner could not open
  static constexpr MessageId id{4};
  std::uint32_t round = 0;
  std::vector<PeerId> failed;
  std::string why;
  template <class V> void fields(V&& v) { v(round); v(failed, limits::peers_named_max); v(why, limits::text_bytes_max); }
};

struct Done {  // "I hold the whole result of this attempt"
  static constexpr MessageId id{5};
  ViewId view;
  OpKey key;
  std::uint64_t verdicts_seen = 0;  // stands for "lowest undelivered": verdicts arrive in the order of their index
  template <class V> void fields(V&& v) { v(view); v(key); v(verdicts_seen); }
};

struct Broken {  // this attempt broke here; cancels every DONE that the peer said in this view
  static constexpr MessageId id{6};
  ViewId view;
  OpKey key;
  PeerId link = no_peer;
  std::string why;
  template <class V> void fields(V&& v) { v(view); v(key); v(link); v(why, limits::text_bytes_max); }
};

struct LinkLost {  // a data link broke, or could not be opened again
  static constexpr MessageId id{7};
  ViewId view;
  PeerId peer = no_peer;
  bool refused = false;    // nobody listens there any more: a witness of death
  bool gave_up = false;    // dialling again did not help
  std::string why;
  template <class V> void fields(V&& v) { v(view); v(peer); v(refused); v(gave_up); v(why, limits::text_bytes_max); }
};

struct WaitingFor {
  OpKey key;
  Call call = Call::barrier;
  bool done = false;
  bool operator==(const WaitingFor&) const = default;
  template <class V> void fields(V&& v) { v(key); v(call); v(done); }
};

struct Waiting {  // a caller waits longer than a second; `stuck`: no thread of the peer can start anything else
  static constexpr MessageId id{8};
  ViewId view;
  bool stuck = false;
  bool at_boundary = false;
  std::vector<WaitingFor> calls;
  template <class V> void fields(V&& v) { v(view); v(stuck); v(at_boundary); v(calls, limits::operations_open_max); }
};

struct EnterBoundary {  // `withdraw`: the caller gave up; answered by Failed, unless the boundary has passed already
  static constexpr MessageId id{9};
  ViewId view;
  std::uint32_t boundary = 0;   // the one that the caller wants to pass: passed so far + 1
  std::uint32_t islands = 0;    // stay until the run has so many; 0: nobody needs to come
  std::uint64_t verdicts_seen = 0;
  bool withdraw = false;
  template <class V> void fields(V&& v) { v(view); v(boundary); v(islands); v(verdicts_seen); v(withdraw); }
};

struct Abandon {  // "let this operation fail for everybody": time-out, cancel, mismatch, or a loss that must not be retried
  static constexpr MessageId id{10};
  OpKey key;
  ErrorCode code = ErrorCode::cancelled;
  std::string text;
  template <class V> void fields(V&& v) { v(key); v(code); v(text, limits::text_bytes_max); }
};

struct Leave {
  static constexpr MessageId id{11};
  template <class V> void fields(V&&) {}
};

// One tensor of a shared state as a peer holds it.
struct StateEntry {
  std::string name;
  DType dtype = DType::float32;
  std::uint64_t count = 0;
  Digest root{};
  bool operator==(const StateEntry&) const = default;
  template <class V> void fields(V&& v) { v(name, limits::name_bytes_max); v(dtype); v(count); v(root); }
};

struct StateOffer {
  static constexpr MessageId id{12};
  ViewId view;
  OpKey key;
  std::uint32_t group = 0;
  std::uint64_t revision = 0;
  Strategy strategy = Strategy::enforce_popular;
  std::vector<StateEntry> entries;
  template <class V> void fields(V&& v) {
    v(view); v(key); v(group); v(revision); v(strategy); v(entries, limits::tensors_max);
  }
};

// ---- master -> peer --------------------------------------------------------------------------------------------

struct Welcome {
  static constexpr MessageId id{32};
  PeerId peer = no_peer;
  std::uint64_t run = 0;
  std::uint32_t incarnation = 0;
  std::uint32_t heartbeat_ms = 0;
  std::string island;
  template <class V> void fields(V&& v) { v(peer); v(run); v(incarnation); v(heartbeat_ms); v(island, limits::name_bytes_max); }
};

struct Refused {
  static constexpr MessageId id{33};
  ErrorCode code = ErrorCode::refused;
  std::string text;
  template <class V> void fields(V&& v) { v(code); v(text, limits::text_bytes_max); }
};

struct Prove {  // "open links to these; then you may come in"
  static constexpr MessageId id{34};
  std::uint32_t round = 0;
  std::vector<Member> targets;
  template <class V> void fields(V&& v) { v(round); v(targets, limits::peers_named_max); }
};

struct ViewMessage {
  static constexpr MessageId id{35};
  View view;
  std::string why;  // for people: who left or came
  template <class V> void fields(V&& v) { v(view); v(why, limits::text_bytes_max); }
};

struct Commit {
  static constexpr MessageId id{36};
  std::uint64_t index = 0;         // verdicts are numbered by the master
  std::uint64_t minimum_seen = 0;  // every member that it concerns has seen the verdicts up to here
  Verdict verdict;
  template <class V> void fields(V&& v) { v(index); v(minimum_seen); v(verdict); }
};

struct Failed {
  static constexpr MessageId id{37};
  std::uint64_t index = 0;         // 0: about update_topology, for the boundary that the key's tag names
  Verdict verdict;
  template <class V> void fields(V&& v) { v(index); v(verdict); }
};

struct Passed {  // a boundary that nobody new came through: the view stays
  static constexpr MessageId id{38};
  ViewId view;
  std::uint32_t boundaries = 0;
  template <class V> void fields(V&& v) { v(view); v(boundaries); }
};

struct Evicted {
  static constexpr MessageId id{39};
  ErrorCode code = ErrorCode::evicted;
  std::string text;
  template <class V> void fields(V&& v) { v(code); v(text, limits::text_bytes_max); }
};

struct Missing {  // answer to Waiting: who has not come to the call yet
  static constexpr MessageId id{40};
  OpKey key;
  Call call = Call::barrier;
  std::vector<PeerId> peers;
  template <class V> void fields(V&& v) { v(key); v(call); v(peers, limits::peers_named_max); }
};

struct Pulse {  // the master lives; and how many islands are at the door
  static constexpr MessageId id{41};
  std::uint32_t waiting = 0;
  template <class V> void fields(V&& v) { v(waiting); }
};

// What was elected: each entry's root, and who holds it.
struct ElectedEntry {
  StateEntry entry;
  std::vector<PeerId> donors;  // of the receiver's group, in member order
  bool operator==(const ElectedEntry&) const = default;
  template <class V> void fields(V&& v) { v(entry); v(donors, limits::peers_named_max); }
};

struct StatePlan {
  static constexpr MessageId id{42};
  ViewId view;
  OpKey key;
  std::uint64_t revision = 0;
  std::vector<ElectedEntry> entries;
  template <class V> void fields(V&& v) { v(view); v(key); v(revision); v(entries, limits::tensors_max); }
};

struct Suspended {
  static constexpr MessageId id{43};
  std::uint32_t heard = 0, needed = 0;
  std::string text;
  template <class V> void fields(V&& v) { v(heard); v(needed); v(text, limits::text_bytes_max); }
};

// ---- peer -> peer ----------------------------------------------------------------------------------------------

struct LinkHello {  // the first message of every stripe
  static constexpr MessageId id{64};
  std::uint64_t run = 0;
  PeerId from = no_peer, to = no_peer;
  std::uint64_t link = 0;  // drawn by the dialler: the stripes of one link carry the same number
  std::uint8_t stripe = 0, stripes = 1;
  template <class V> void fields(V&& v) { v(run); v(from); v(to); v(link); v(stripe); v(stripes); }
};

struct Ready {  // "I have posted this operation: send"
  static constexpr MessageId id{65};
  ViewId view;
  OpKey key;
  Descriptor descriptor;
  template <class V> void fields(V&& v) { v(view); v(key); v(descriptor); }
};

// Shared state travels in blocks: a byte range of a tensor, or of its list of chunk hashes.
struct BlockRequest {
  static constexpr MessageId id{66};
  OpKey key;
  ViewId view;
  std::uint32_t entry = 0;
  bool hashes = false;
  std::uint64_t offset = 0;
  std::uint32_t bytes = 0;
  template <class V> void fields(V&& v) { v(key); v(view); v(entry); v(hashes); v(offset); v(bytes); }
};

struct BlockFailed {
  static constexpr MessageId id{67};
  OpKey key;
  ViewId view;
  std::uint32_t entry = 0;
  std::string why;
  template <class V> void fields(V&& v) { v(key); v(view); v(entry); v(why, limits::text_bytes_max); }
};

using ToMaster = std::variant<Join, Register, Heartbeat, Reachable, Done, Broken, LinkLost, Waiting, EnterBoundary, Abandon,
                              Leave, StateOffer>;
using ToPeer = std::variant<Welcome, Refused, Prove, ViewMessage, Commit, Failed, Passed, Evicted, Missing, Pulse, StatePlan,
                            Suspended>;
using BetweenPeers = std::variant<LinkHello, Ready, BlockRequest, BlockFailed>;

}  // namespace pccl
