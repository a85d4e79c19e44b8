// Messages of the master to a peer.
#pragma once
#include "wire/values.hpp"

namespace pccl {

struct Welcome {
  static constexpr MessageId id = MessageId::welcome;
  PeerId peer = no_peer;
  std::uint64_t run = 0;
  std::uint32_t incarnation = 0;
  std::uint32_t heartbeat_ms = 0;
  std::string island;
  template <class V> void fields(V&& v) {
    v(peer), v(run), v(incarnation), v(heartbeat_ms), v(island, limits::name_bytes_max);
  }
};

struct Refused {
  static constexpr MessageId id = MessageId::refused;
  ErrorCode code = ErrorCode::refused;
  std::string text;
  template <class V> void fields(V&& v) { v(code), v(text, limits::text_bytes_max); }
};

struct Prove {  // "open links to these; then you may come in"
  static constexpr MessageId id = MessageId::prove;
  std::uint32_t round = 0;
  std::vector<Member> targets;
  template <class V> void fields(V&& v) { v(round), v(targets, limits::peers_named_max); }
};

struct ViewMessage {
  static constexpr MessageId id = MessageId::view;
  View view;
  std::string why;  // for people: who left or came
  template <class V> void fields(V&& v) { v(view), v(why, limits::text_bytes_max); }
};

struct Commit {
  static constexpr MessageId id = MessageId::commit;
  std::uint64_t index = 0;         // verdicts are numbered by the master
  std::uint64_t minimum_seen = 0;  // every member that it concerns has seen the verdicts up to here
  Verdict verdict;
  template <class V> void fields(V&& v) { v(index), v(minimum_seen), v(verdict); }
};

struct Failed {
  static constexpr MessageId id = MessageId::failed;
  std::uint64_t index = 0;  // 0: about update_topology, for the boundary that the key's tag names
  Verdict verdict;
  template <class V> void fields(V&& v) { v(index), v(verdict); }
};

struct Passed {  // a boundary that nobody new came through: the view stays
  static constexpr MessageId id = MessageId::passed;
  ViewId view;
  std::uint32_t boundaries = 0;
  template <class V> void fields(V&& v) { v(view), v(boundaries); }
};

struct Evicted {
  static constexpr MessageId id = MessageId::evicted;
  ErrorCode code = ErrorCode::evicted;
  std::string text;
  template <class V> void fields(V&& v) { v(code), v(text, limits::text_bytes_max); }
};

struct Missing {  // answer to Waiting: who has not come to the call yet, and who else keeps it from ending
  static constexpr MessageId id = MessageId::missing;
  OpKey key;
  Call call = Call::barrier;
  std::vector<PeerId> peers;
  std::vector<Hindrance> hindrances = {};
  template <class V> void fields(V&& v) {
    v(key), v(call), v(peers, limits::peers_named_max), v(hindrances, limits::peers_named_max);
  }
};

struct Pulse {  // the master lives; and how many islands are at the door
  static constexpr MessageId id = MessageId::pulse;
  std::uint32_t waiting = 0;
  std::string door;  // to those who are there, for people: what they wait for
  template <class V> void fields(V&& v) { v(waiting), v(door, limits::text_bytes_max); }
};

// What was elected: each entry's root, and who holds it.
struct ElectedEntry {
  StateEntry entry;
  std::vector<PeerId> donors;  // of the receiver's group, in member order
  bool operator==(const ElectedEntry&) const = default;
  template <class V> void fields(V&& v) { v(entry), v(donors, limits::peers_named_max); }
};

struct StatePlan {
  static constexpr MessageId id = MessageId::state_plan;
  ViewId view;
  OpKey key;
  std::uint64_t revision = 0;
  std::vector<ElectedEntry> entries;
  template <class V> void fields(V&& v) { v(view), v(key), v(revision), v(entries, limits::tensors_max); }
};

struct Probe {  // "keep your link to this peer full for so long; how fast is it?"
  static constexpr MessageId id = MessageId::probe;
  ViewId view;
  std::uint32_t round = 0;
  PeerId peer = no_peer;
  std::uint32_t milliseconds = 0;
  template <class V> void fields(V&& v) { v(view), v(round), v(peer), v(milliseconds); }
};

struct Suspended {
  static constexpr MessageId id = MessageId::suspended;
  std::uint32_t heard = 0, needed = 0;
  std::string text;
  template <class V> void fields(V&& v) { v(heard), v(needed), v(text, limits::text_bytes_max); }
};

}  // namespace pccl
