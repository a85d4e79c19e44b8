// The master's side of the protocol for the peers of one role: who is in the run, which view holds, what is
// committed. A pure state machine. It creates every view and every verdict; it carries no tensor data. A run
// has one for each role; they know nothing of each other. Owned by one thread (or by the simulator).
#pragma once
#include <deque>
#include <map>
#include <optional>
#include <set>

#include "base/rng.hpp"
#include "protocol/ballot.hpp"
#include "protocol/departures.hpp"
#include "protocol/effects.hpp"
#include "protocol/member_index.hpp"
#include "protocol/rules.hpp"
#include "protocol/run_report.hpp"
#include "protocol/timing.hpp"
#include "protocol/wiring.hpp"

namespace pccl {

// What a restarted master finds in its store.
struct Stored {
  std::uint32_t incarnation = 0;
  View view;
};

// "a, b and c", or "a, b, c, d and 5 more".
std::string some_of(const std::vector<std::string>& names);

// The number that the first peer of a role gets. Ids of two roles differ, so that nobody who reads them mixes
// them up.
constexpr std::uint32_t first_peer(Role role) { return role == Role::keeper ? 1'000'001 : 1; }

// Which of a run's masters a connection is for. It begins with either of these; anything else is for the
// trainers', who will not have it.
inline Role role_of(const ToMaster& introduction) {
  if (const auto* join = std::get_if<Join>(&introduction)) return join->role;
  const auto* again = std::get_if<Register>(&introduction);
  return again != nullptr ? again->join.role : Role::trainer;
}

// What a restarted master does not know yet: whether those who came to it are the run, or a few who lost the
// way to another master that goes on with the rest.
enum class Doubt : std::uint8_t { none, hears_some, heard_too_few };

struct MasterConfig {
  Timing timing;
  Rules rules;
  Role role = Role::trainer;   // of all its peers
  std::uint64_t run = 1;       // drawn at random by the runtime; 0 while a restarted master has not heard it
  std::uint64_t next_run = 1;  // then: of the one that begins if nobody of an older one comes
  bool restarted = false;      // listen for `grace` before speaking
  std::optional<Stored> stored;
};

class Master {
 public:
  Master(MasterConfig config, Instant now);

  void on(ConnectionId connection, const ToMaster& message, Instant now);
  void on_closed(ConnectionId connection, Instant now);
  void on_refused(PeerId peer, Instant now);  // nobody listens at its addresses
  void tick(Instant now);
  Instant next_deadline() const;
  MasterEffects take_effects();

  const View& view() const { return view_; }
  std::uint32_t incarnation() const { return incarnation_; }
  std::uint32_t waiting() const { return ready_; }  // islands that could come in now
  std::uint64_t run() const { return run_; }
  bool recovering() const { return phase_ != Phase::serving; }
  bool listening() const { return phase_ == Phase::listening; }  // for the members of the last view
  Doubt doubt() const;
  // Of the run's other roles, the worst. Before each tick; also at once when it changes.
  void on_others(Doubt others, Instant now);
  RunReport report(Instant now) const;
  std::size_t peers() const { return peers_.size() + early_joins_.size(); }  // members, and those at the door

 private:
  enum class Phase : std::uint8_t { serving, listening, suspended };
  struct Peer {
    Join join;
    ConnectionId connection = no_connection;
    Instant heard = 0;
    Instant lost_since = never;  // its connection broke
    std::uint64_t verdicts_seen = 0;
    std::optional<Waiting> waiting;
    std::optional<EnterBoundary> boundary;
    std::optional<std::uint32_t> proof_round;  // at the door: links asked for, not yet answered
    bool proven = false;
    std::uint32_t failures = 0;
    std::vector<Figure> figures;   // for people
    std::uint32_t complaints = 0;  // breaks that it reported since its last commit
  };
  struct DoorIsland {
    std::uint16_t size = 1;
    std::map<std::uint16_t, PeerId> ranks;
    std::uint64_t order = 0;
    std::uint32_t min_islands = 1;  // the most that a rank of it asks for
    std::uint32_t start_rank = no_start_rank;
    bool ready = false;  // whole, and its links are proven: it could come in now
  };
  struct OpenOperation {
    PeerId opened_by = no_peer;  // who brought it up
    Ballot done;                 // of those whom it concerns, and of no others
    std::size_t voters = 0;      // how many these are
    std::map<std::uint32_t, std::map<PeerId, StateOffer>> offers;  // by group
    std::set<std::uint32_t> elected;                               // groups
    std::optional<std::set<PeerId>> absent;  // once somebody waits for long: who has not come to it yet
    std::optional<std::pair<PeerId, Call>> called;  // what it is, by the first who said
    std::set<PeerId> askers;                        // that wait to hear who is missing
    Instant answer_at = never;
    std::map<PeerId, std::uint64_t> moved;  // as they last said
    Instant all_posted_at = never;          // or when data last moved
    Instant first_heard = never;
    Instant asked_since = never;        // somebody waits for it
    std::vector<Hindrance> hindrances;  // as those who wait were told
  };
  struct Probing {  // all members are at the boundary, and their links are measured round by round
    std::vector<GroupRing> groups;
    std::uint32_t rounds = 0, next = 0, milliseconds = 0;
    std::set<std::pair<PeerId, PeerId>> open;  // (from, to) of this round, not answered yet
    Instant deadline = never;
  };
  struct Record {
    std::uint64_t index;
    Verdict verdict;
  };

  void on(ConnectionId c, PeerId peer, const Join& m, Instant now);
  void on(ConnectionId c, PeerId peer, const Register& m, Instant now);
  void on(ConnectionId c, PeerId peer, const Heartbeat& m, Instant now);
  void on(ConnectionId c, PeerId peer, const Reachable& m, Instant now);
  void on(ConnectionId c, PeerId peer, const Done& m, Instant now);
  void on(ConnectionId c, PeerId peer, const Broken& m, Instant now);
  void on(ConnectionId c, PeerId peer, const LinkLost& m, Instant now);
  void on(ConnectionId c, PeerId peer, const Waiting& m, Instant now);
  void on(ConnectionId c, PeerId peer, const EnterBoundary& m, Instant now);
  void on(ConnectionId c, PeerId peer, const Abandon& m, Instant now);
  void on(ConnectionId c, PeerId peer, const Leave& m, Instant now);
  void on(ConnectionId c, PeerId peer, const StateOffer& m, Instant now);
  void on(ConnectionId c, PeerId peer, const LinkReport& m, Instant now);
  void on(ConnectionId c, PeerId peer, const Probed& m, Instant now);
  void on(ConnectionId c, PeerId peer, const Figures& m, Instant now);

  // door
  Error mixed(const Join& join) const;
  Error admissible(const Join& join) const;
  std::optional<PeerId> in_the_way(const Join& join) const;
  void hold(ConnectionId c, const Join& join, Instant now);
  void let_held_in(Instant now);
  void refuse(ConnectionId c, ErrorCode code, const std::string& text);
  void seat(PeerId peer, Instant now);
  bool seat_again(ConnectionId c, const Register& m, Instant now);
  bool complete(const DoorIsland& island) const;
  void start_proof(const std::string& island, Instant now);
  void update_ready(DoorIsland& island, Instant now);
  void leave_door(std::map<std::string, DoorIsland>::iterator island);
  void drop_from_door(PeerId peer, const std::string& why, ErrorCode code = ErrorCode::refused);
  void form_first_view(Instant now);
  std::vector<Member> door_members();
  std::string who_has_not_come(const std::string& name, const DoorIsland& island) const;
  std::string before_the_run() const;
  std::string news_for(const std::string& name, const DoorIsland& island) const;
  std::string news_for_held(const Join& join) const;
  std::string door_line() const;
  void tell_door(Instant now);
  void note_door(Instant now);

  // views
  void new_view(std::vector<Member> members, const std::string& why, Instant now);
  void remove(const std::set<std::string>& islands, const std::string& why, ErrorCode code, Instant now);
  void lose(const std::set<std::string>& islands, const std::string& why, RecentFailure::Kind kind,
            Instant now, ErrorCode code = ErrorCode::evicted);
  void evict(PeerId peer, const std::string& why, Instant now);
  void same_members(const std::string& why, Instant now);
  void begin_anew(const std::string& why, Instant now);
  bool has_complained(PeerId peer) const;
  bool complains_too_often(PeerId peer, PeerId about, Instant now);
  void judge_links(Instant now);
  bool neighbours(PeerId a, PeerId b) const;
  bool mesh();
  void number_hosts();
  void check_silence(Instant now);
  void try_pass_boundary(Instant now);
  void pass_boundary(std::vector<RingReport> reports, const std::string& why, Instant now);
  void fail_boundary(PeerId peer, ErrorCode code, const std::string& text);

  // links
  const std::vector<PeerId>& ring_of(std::uint32_t group) const;
  std::vector<GroupRing> group_rings() const;
  void keep_order();
  void write_order();
  void tell_hints(Instant now);
  bool measures() const;
  void look_at_links(Instant now);
  std::vector<RingReport> adopt_orders();
  bool probe_first(Instant now);
  void next_probes(Instant now);
  void check_probes(Instant now);
  void end_probes(Instant now);

  // for people
  MemberReport report_of(const Member& m, Instant now) const;
  void report_links(RunReport& report) const;
  void report_operations(RunReport& report, Instant now) const;

  // operations
  OpenOperation* open(const OpKey& key, PeerId by, Instant now);
  void elect_state(const OpKey& key, OpenOperation& operation, std::uint32_t group, PeerId peer, Instant now);
  std::size_t offers_of(PeerId peer) const;
  bool all_done(const OpKey& key, const OpenOperation& operation) const;
  void fail(const OpKey& key, ErrorCode code, const std::string& text, Instant now);
  void publish(Verdict verdict);
  void send_verdict(PeerId peer, ConnectionId c, const Record& record, std::uint64_t minimum);
  bool has_verdict(const OpKey& key) const { return recorded_.contains(key); }
  void forget(std::uint64_t minimum);
  std::uint64_t minimum_seen() const;
  bool same_call(const OpKey& key, OpenOperation& operation, PeerId peer, Call call, Instant now);
  void answer_askers(Instant now);
  std::vector<Hindrance> hindrances(const OpKey& key, const OpenOperation& operation, Instant now) const;
  void note_hindrances(const OpKey& key, OpenOperation& operation, std::vector<Hindrance> found);
  void judge_stragglers(Instant now);
  void answer_waiting(PeerId peer, const Waiting& m, Instant now);
  bool is_posted(PeerId peer, const OpKey& key) const;
  void note_blocked(PeerId peer);
  std::string who_is_missing(const OpKey& key) const;
  void find_deadlock(Instant now);
  void judge_deadlines(Instant now);
  void note_duration(Duration took);
  Duration adaptive_deadline() const;

  // recovery
  void register_again(ConnectionId c, const Register& m, Instant now);
  void hear(ConnectionId c, const Register& m, Instant now);
  const View& last_view() const;
  bool all_here(const View& base);
  bool here(PeerId peer) const;
  std::set<std::string> islands_here(const View& base) const;
  bool quorum(const View& base, const std::set<std::string>& here) const;
  void try_recover(Instant now);
  bool unheard_of() const;
  void wait_for_others(Instant now);
  void expect_no_more(Instant now);
  std::vector<std::pair<ConnectionId, Register>> take_from_door();
  bool stored_is_last(const View& base) const;
  void suspend();
  void knock_at_members();
  bool asks_anew(const Member& m) const;
  bool nobody_left(const View& base) const;
  void evict_outsiders(const View& base);
  void recover(const View& base, const std::set<std::string>& islands, Instant now);
  void recover_verdicts(const View& base);

  void tell_gone(ConnectionId c, PeerId peer, ErrorCode code);
  PeerId peer_of(ConnectionId c) const;
  bool member(PeerId peer) const { return index_.find(peer) != nullptr; }
  Instant silent_at(const Peer& state) const;
  void send(PeerId peer, ToPeer message);
  void send_to(ConnectionId c, ToPeer message);
  void forget_peer(PeerId peer);
  void broadcast_pulse();
  template <class E> void emit(E effect) { effects_.emplace_back(std::move(effect)); }

  Timing timing_;
  Rules rules_;
  Role role_;
  std::uint64_t run_, next_run_;
  Doubt others_ = Doubt::none;
  Phase phase_ = Phase::serving;
  std::uint32_t incarnation_ = 0;
  View view_;
  MemberIndex index_;  // of view_
  std::uint32_t next_peer_;
  std::uint64_t next_door_ = 1;
  std::map<ConnectionId, PeerId> connections_;
  std::map<PeerId, Peer> peers_;
  std::map<std::string, DoorIsland> door_;
  std::uint32_t ready_ = 0;                    // of them
  std::map<OpKey, OpenOperation> operations_;  // uncommitted, of this view
  std::deque<Record> records_;
  std::set<OpKey> recorded_;      // their keys
  std::set<PeerId> at_boundary_;  // members that wait there
  std::set<PeerId> blocked_;      // that can start nothing: at the boundary, or stuck in a call
  std::uint64_t next_index_ = 1;
  struct Suspicion {
    bool broke = false, gave_up = false;  // neither: only a witness that nobody listens there
    std::string why;
  };
  std::map<std::pair<PeerId, PeerId>, Suspicion> suspicions_;  // (reporter, suspect); no_peer: the master
  std::set<std::pair<PeerId, PeerId>> unreachable_;  // (smaller, larger): no link, and none is needed
  Instant judge_at_ = never;
  Wiring wiring_;
  std::map<std::uint32_t, std::vector<PeerId>> rings_;  // of groups whose ring is not in order of admission
  bool view_due_ = false;                               // the next boundary brings other hints or orders
  Instant look_at_ = never, hints_told_ = 0;
  std::optional<Probing> probing_;
  std::uint32_t probe_round_ = 0;  // counted for ever: an answer belongs to one
  Instant pulse_at_ = 0;           // soon, when who waits at the door has changed
  Instant liveness_at_ = 0;        // nobody's time is over before
  Instant ticked_ = 0;             // the last turn
  std::deque<Duration> durations_;
  std::optional<Stored> stored_;
  Instant listen_until_ = never;
  Instant run_over_at_ = never;  // no living peer of the old run waits for a master any longer
  std::map<PeerId, Register> heard_;
  std::set<std::pair<ViewId, PeerId>>
      heard_views_;           // of heard_: the newest is asked for at each registration
  std::size_t awaited_ = 0;   // place in the last view of one who was not here yet
  std::set<PeerId> refused_;  // stored members at whose addresses nobody listens
  // Came while a restarted master listens, or while another has their place.
  std::map<ConnectionId, Join> early_joins_;
  bool names_freed_ = false;  // since they were last let in
  Instant door_news_at_ = never;
  Instant door_since_ = never, door_quiet_until_ = 0;  // somebody waits; and no line before
  std::string door_said_;                              // the last one
  Departures departures_;
  Tally tally_;
  RecentFailures failures_;
  MasterEffects effects_;
  MasterEffects held_back_;  // rule [4] switched off: commits that leave after the view
};

}  // namespace pccl
