// A peer's side of the protocol: door, views, verdicts, boundaries, links. A pure state machine: events in,
// effects out. Owned by one thread (or by the simulator). It decides when an attempt starts and what became
// of it; it moves no data.
#pragma once
#include <functional>
#include <map>
#include <optional>
#include <set>

#include "protocol/effects.hpp"
#include "protocol/operation.hpp"
#include "protocol/rules.hpp"
#include "protocol/timing.hpp"

namespace pccl {

struct Posting {
  Scope scope = Scope::group;
  std::uint32_t name = 0;  // of the tag; 0: automatic
  Descriptor descriptor;
  Duration timeout = never;
  std::uint32_t peers = 0;  // the group has to be so many, or it fails for all with peer_lost; 0: any number
  // Of a pair, of which this peer is one. The runtime finds out `from` where it is nobody: whoever sends.
  PeerId from = no_peer, to = no_peer;
};

class Session {
 public:
  enum class Stage : std::uint8_t { joining, door, member, gone };

  Session(Join join, Timing timing, Rules rules = {});

  // The master's connection.
  void on_master_up(Instant now);
  void on_master_down(Instant now, const std::string& why);
  void on(const ToPeer& message, Instant now);

  // The data links.
  void on_link_up(PeerId peer, Instant now);
  void on_link_down(PeerId peer, bool refused, const std::string& why, Instant now);
  void on_dial_failed(PeerId peer, bool refused, const std::string& why, Instant now);
  void want_link(PeerId peer, Instant now);  // beyond the ring: a donor, for the running attempt

  // The caller.
  Result<OpKey> post(Posting posting, Instant now);
  void abandon(const OpKey& key, ErrorCode code, const std::string& text, Instant now);
  // True: passed at once. `probe_ms`: all measure their links first, each for so long.
  Result<bool> enter_boundary(std::uint32_t islands, Duration timeout, Instant now,
                              std::uint32_t probe_ms = 0);
  // The caller gave up waiting. How it ends is the master's word: BoundaryFailed, or it has passed all the
  // same. Who enters again meanwhile gets that answer too.
  void leave_boundary(Instant now);
  void leave(Instant now);
  void set_stuck(bool stuck) { stuck_ = stuck; }
  void show(std::vector<Figure> figures);  // on the master's pages, in place of those before
  // How an attempt comes on on each of its links; asked when a caller waits for long.
  using LinkStates = std::function<std::vector<LinkState>(const OpKey&)>;
  void ask_links(LinkStates ask) { link_states_ = std::move(ask); }

  // The data plane.
  void note_moved(const OpKey& key);  // data came for the attempt
  void attempt_complete(const OpKey& key, Instant now);
  void attempt_broken(const OpKey& key, PeerId link, const std::string& why, Instant now);
  // What this peer holds of a shared state, for the attempt in `view`; a stale offer is dropped.
  void offer_state(const OpKey& key, ViewId view, StateOffer offer);
  // What operations showed about links; told to the master now and then. At the door, with the proof.
  void note_links(const std::vector<MeasuredLink>& links, Instant now);
  void probed(std::uint32_t round, const MeasuredLink& link);  // answer to effect::Probe

  void tick(Instant now);
  Instant next_deadline() const;
  Effects take_effects() { return std::exchange(effects_, {}); }
  bool has_effects() const { return !effects_.empty(); }

  Stage stage() const { return stage_; }
  PeerId peer() const { return me_; }
  std::uint64_t run() const { return run_; }
  const Join& identity() const { return join_; }
  const View& view() const { return view_; }
  const Error& end() const { return end_; }
  std::uint32_t waiting() const { return waiting_; }
  const std::string& door() const { return door_; }  // what it waits for there, as the master last said
  bool at_boundary() const { return boundary_.number != 0; }
  bool link_up(PeerId peer) const {
    auto it = links_.find(peer);
    return it != links_.end() && it->second.up;
  }
  const Operation* find(const OpKey& key) const {
    auto it = operations_.find(key);
    return it == operations_.end() ? nullptr : &it->second;
  }
  const std::map<OpKey, Operation>& operations() const { return operations_; }
  bool decided(const OpKey& key) const;  // its verdict has been seen here, or it is older than a boundary
  std::vector<PeerId> ring() const { return view_.ring(join_.group); }  // of our group
  bool alone(const OpKey& key) const;

 private:
  struct Link {
    bool up = false, dialling = false, lost = false;
    bool needed = false;  // to a ring neighbour
    bool wanted = false;  // to a donor, or to prove that we can
    Instant wanted_since = never, retry_at = never;
    bool refused = false;
    std::string why;
    std::vector<Address> addresses;
  };
  struct Boundary {
    std::uint32_t number = 0, islands = 0, probe_ms = 0;
    Instant deadline = never, notice_at = never;
    std::vector<PeerId> missing;  // as the master last told
    Error given_up;               // the caller went away with this; the master has not answered yet
    bool again = false;           // and somebody has come since, who wants to wait
  };
  struct Proof {
    Prove prove;
    Instant deadline = never;
    bool answered = true;
  };

  void on(const Welcome& m, Instant now);
  void on(const Refused& m, Instant now);
  void on(const Prove& m, Instant now);
  void on(const ViewMessage& m, Instant now);
  void on(const Commit& m, Instant now);
  void on(const Failed& m, Instant now);
  void on(const Passed& m, Instant now);
  void on(const Evicted& m, Instant now);
  void on(const Missing& m, Instant now);
  void on(const Pulse& m, Instant now);
  void on(const StatePlan& m, Instant now);
  void on(const Suspended& m, Instant now);
  void on(const Probe& m, Instant now);

  static OpKey first_use(OpKey key);
  Error refused(const Posting& posting) const;
  std::string missing_peer(const Operation& operation) const;
  void note_departures(const View& before);
  std::string departed() const;
  std::string other_shape(const Operation& operation) const;
  std::string lost_by(const Operation& operation, const std::vector<PeerId>& gone) const;
  void transition(Operation& operation, OperationState to);
  Instant notice_at(const Operation& operation, Instant now) const;
  void begin_attempt(Operation& operation, Instant now);
  void drop_attempt(Operation& operation);
  void restart_operations(const View& before, Instant now);
  void finish(const OpKey& key, Outcome outcome);
  void fail_early(const Verdict& verdict);
  void ask_abandon(Operation& operation, ErrorCode code, const std::string& text, Instant now);
  void remember(std::uint64_t index, const Verdict& verdict);
  std::vector<Operation*> in_posted_order();
  void resend_statements();
  void send_boundary();
  void withdraw(Error why);
  void boundary_failed(const Verdict& verdict);
  void pass_boundary(std::uint32_t boundaries, bool skipped);
  bool may_skip_boundary() const;
  bool single_group() const;
  void end_session(Error why);
  Error fate_of(const Operation& operation, const Error& why) const;
  void reconcile_links(Instant now);
  void release_links();
  void dial(PeerId peer, Link& link, Instant now);
  void report_lost(PeerId peer, Link& link, bool refused, bool gave_up, const std::string& why);
  void check_links(Instant now);
  void check_proof(Instant now);
  void report_links(Instant now);
  void start_probe();
  void check_probe(Instant now);
  bool has_door_news() const;
  void check_door(Instant now);
  std::string why_boundary_timed_out() const;
  void check_operations(Instant now);
  void check_master(Instant now, bool paused);
  void send_waiting(Instant now);
  std::string with_islands(const std::vector<PeerId>& peers) const;
  std::string whom(const Missing& m) const;
  Register registration() const;
  // A failure without a reason would pass for a success.
  static ErrorCode reason(ErrorCode code) { return code == ErrorCode::none ? ErrorCode::protocol : code; }
  template <class E> void emit(E effect) { effects_.emplace_back(std::move(effect)); }
  void to_master(ToMaster message) {
    if (master_up_) emit(effect::SendMaster{std::move(message)});
  }

  Join join_;
  Timing timing_;
  Rules rules_;
  Stage stage_ = Stage::joining;
  Error end_;
  PeerId me_ = no_peer;
  std::uint64_t run_ = 0;
  View view_;
  std::uint64_t verdicts_seen_ = 0;
  std::map<OpKey, Operation> operations_;
  std::map<std::uint64_t, Verdict> records_;  // by index: verdicts that some member may lack
  std::map<OpKey, Verdict> failed_early_;     // failed before this peer posted them
  std::map<OpKey, std::uint32_t> counters_;   // of uses, by the first one's key
  std::uint64_t posted_ = 0;
  std::vector<PeerId> departed_;  // of this group, in the last view that had less; since the boundary
  std::map<PeerId, Link> links_;
  std::set<std::pair<PeerId, bool>> reported_;  // (peer, gave up) in this view
  std::vector<ToMaster> reports_;               // links lost and attempts broken in this view, to say again
  Boundary boundary_;
  std::optional<std::uint32_t> shared_waiting_;  // `waiting` since the last boundary, where all read it
  Proof proof_;
  std::map<PeerId, MeasuredLink> measured_;  // not reported yet
  Instant report_at_ = 0;                    // the next one, not before
  std::optional<Probe> probe_;               // asked for, not answered
  bool probe_started_ = false;
  Instant probe_by_ = never;  // a link that has to be opened first must be by then
  std::uint32_t waiting_ = 0;
  std::string door_, door_said_;  // and what its caller was last told of it
  Instant door_notice_at_ = never;
  bool stuck_ = false;
  bool master_up_ = false;
  Instant master_heard_ = 0, master_down_since_ = never, heartbeat_at_ = 0;
  Instant ticked_ = 0;  // the last turn
  LinkStates link_states_;
  std::vector<Figure> figures_;
  bool figures_told_ = true;
  Instant waiting_said_at_ = 0;
  Effects effects_;
};

}  // namespace pccl
