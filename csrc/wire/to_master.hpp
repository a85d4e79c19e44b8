// Messages of a peer to the master.
#pragma once
#include "wire/values.hpp"

namespace pccl {

inline constexpr std::uint32_t no_start_rank = ~std::uint32_t{0};

struct Join {  // asks to be let in; answered by Welcome or Refused
  static constexpr MessageId id = MessageId::join;
  std::string island;  // empty: a plain peer, an island of one
  std::uint16_t island_rank = 0, island_size = 1;
  std::uint32_t group = 0;
  Role role = Role::trainer;
  std::uint32_t min_islands = 1;
  std::vector<Address> reachable_at;
  std::string host;  // where the peer says it runs, for messages to people
  std::uint32_t process = 0;
  std::string run_name;                      // which of the master's runs; empty: the one without a name
  std::uint32_t start_rank = no_start_rank;  // of those who come in together, the smallest is the first
  bool deterministic = false;                // the same for all peers of a run
  std::string host_id;    // the same on all peers of one host, and on no other; empty: not known
  bool in_place = false;  // it lets others on its host read its memory, and reads theirs
  template <class V> void fields(V&& v) {
    v(island, limits::name_bytes_max), v(island_rank), v(island_size), v(group), v(role), v(min_islands),
        v(reachable_at, limits::addresses_max), v(host, limits::name_bytes_max), v(process),
        v(run_name, limits::name_bytes_max), v(start_rank), v(deterministic),
        v(host_id, limits::name_bytes_max), v(in_place);
  }
};

// A known peer on a new control connection, to the same master or to its successor: all that it stands for.
struct Register {
  static constexpr MessageId id = MessageId::register_;
  PeerId peer = no_peer;
  std::uint64_t run = 0;
  View view;                           // the last view it was told; id 0.0: it still waits at the door
  std::uint32_t boundary_waiting = 0;  // number of the boundary that it waits at; 0: none
  std::uint32_t boundary_islands = 0;
  std::uint64_t verdicts_seen = 0;  // highest verdict index of the view's incarnation
  std::vector<OpenOperation> open;
  std::vector<Verdict> verdicts;  // those that some member may lack
  Join join;                      // as it once joined
  template <class V> void fields(V&& v) {
    v(peer), v(run), v(view), v(boundary_waiting), v(boundary_islands), v(verdicts_seen),
        v(open, limits::operations_open_max), v(verdicts, limits::records_max), v(join);
  }
};

struct Heartbeat {
  static constexpr MessageId id = MessageId::heartbeat;
  std::uint64_t verdicts_seen = 0;
  template <class V> void fields(V&& v) { v(verdicts_seen); }
};

struct Reachable {  // answer to Prove: which links the joiner could not open
  static constexpr MessageId id = MessageId::reachable;
  std::uint32_t round = 0;
  std::vector<PeerId> failed;
  std::string why;
  std::vector<MeasuredLink> links = {};  // round trips of those that it opened
  template <class V> void fields(V&& v) {
    v(round), v(failed, limits::peers_named_max), v(why, limits::text_bytes_max),
        v(links, limits::peers_named_max);
  }
};

struct Done {  // "I hold the whole result of this attempt"
  static constexpr MessageId id = MessageId::done;
  ViewId view;
  OpKey key;
  std::uint64_t verdicts_seen =
      0;  // stands for "lowest undelivered": verdicts arrive in the order of their index
  template <class V> void fields(V&& v) { v(view), v(key), v(verdicts_seen); }
};

struct Broken {  // this attempt broke here; cancels every DONE that the peer said in this view
  static constexpr MessageId id = MessageId::broken;
  ViewId view;
  OpKey key;
  PeerId link = no_peer;
  std::string why;
  template <class V> void fields(V&& v) { v(view), v(key), v(link), v(why, limits::text_bytes_max); }
};

struct LinkLost {  // a data link broke, or could not be opened again
  static constexpr MessageId id = MessageId::link_lost;
  ViewId view;
  PeerId peer = no_peer;
  bool refused = false;  // nobody listens there any more: a witness of death
  bool gave_up = false;  // dialling again did not help
  std::string why;
  template <class V> void fields(V&& v) {
    v(view), v(peer), v(refused), v(gave_up), v(why, limits::text_bytes_max);
  }
};

struct WaitingFor {
  OpKey key;
  Call call = Call::barrier;
  bool done = false;
  std::uint64_t moved = 0;  // chunks and blocks that came in this attempt: slow is not stuck
  bool operator==(const WaitingFor&) const = default;
  template <class V> void fields(V&& v) { v(key), v(call), v(done), v(moved); }
};

struct Waiting {  // a caller waits longer than a second; `stuck`: no thread of the peer can start anything
                  // else
  static constexpr MessageId id = MessageId::waiting;
  ViewId view;
  bool stuck = false;
  bool at_boundary = false;
  std::vector<WaitingFor> calls;
  std::vector<LinkState> links = {};  // of the oldest of these
  template <class V> void fields(V&& v) {
    v(view), v(stuck), v(at_boundary), v(calls, limits::operations_open_max),
        v(links, limits::peers_named_max);
  }
};

struct EnterBoundary {  // `withdraw`: the caller gave up; answered by Failed, unless the boundary has passed
                        // already
  static constexpr MessageId id = MessageId::enter_boundary;
  ViewId view;
  std::uint32_t boundary = 0;  // the one that the caller wants to pass: passed so far + 1
  std::uint32_t islands = 0;   // stay until the run has so many; 0: nobody needs to come
  std::uint64_t verdicts_seen = 0;
  bool withdraw = false;
  std::uint32_t probe_ms = 0;  // measure the links before it passes, each for so long; 0: do not
  template <class V> void fields(V&& v) {
    v(view), v(boundary), v(islands), v(verdicts_seen), v(withdraw), v(probe_ms);
  }
};

struct Abandon {  // "let this operation fail for everybody": time-out, cancel, mismatch, or a loss that must
                  // not be retried
  static constexpr MessageId id = MessageId::abandon;
  OpKey key;
  ErrorCode code = ErrorCode::cancelled;
  std::string text;
  template <class V> void fields(V&& v) { v(key), v(code), v(text, limits::text_bytes_max); }
};

struct LinkReport {  // what operations showed about this peer's links to others, now and then
  static constexpr MessageId id = MessageId::link_report;
  std::vector<MeasuredLink> links;
  template <class V> void fields(V&& v) { v(links, limits::peers_named_max); }
};

struct Probed {  // answer to Probe
  static constexpr MessageId id = MessageId::probed;
  ViewId view;
  std::uint32_t round = 0;
  MeasuredLink link;
  template <class V> void fields(V&& v) { v(view), v(round), v(link); }
};

struct Figures {  // in place of those that it showed before
  static constexpr MessageId id = MessageId::figures;
  std::vector<Figure> all;
  template <class V> void fields(V&& v) { v(all, limits::figures_max); }
};

struct Leave {
  static constexpr MessageId id = MessageId::leave;
  template <class V> void fields(V&&) {}
};

struct StateOffer {
  static constexpr MessageId id = MessageId::state_offer;
  ViewId view;
  OpKey key;
  std::uint32_t group = 0;
  std::uint64_t revision = 0;
  Strategy strategy = Strategy::enforce_popular;
  std::vector<StateEntry> entries;
  template <class V> void fields(V&& v) {
    v(view), v(key), v(group), v(revision), v(strategy), v(entries, limits::tensors_max);
  }
};

}  // namespace pccl
