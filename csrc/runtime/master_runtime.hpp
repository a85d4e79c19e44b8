// The master process, or a master embedded in one: a thread that owns the sockets and, for each run that it
// serves and each role in it, a pure Master. The first who names a run begins it; it is forgotten with its
// last peer of any role.
#pragma once
#include <atomic>
#include <deque>
#include <functional>
#include <thread>

#include "net/address.hpp"
#include "runtime/hub.hpp"
#include "runtime/master_run.hpp"
#include "runtime/master_store.hpp"
#include "runtime/run_record.hpp"
#include "runtime/stranger_log.hpp"
#include "runtime/strangers.hpp"
#include "wire/codec.hpp"

namespace pccl {

struct MasterOptions {
  std::string listen = "127.0.0.1:0";
  net::Secret secret;
  bool insecure = false;
  Timing timing;
  std::function<void(const std::string&)> log;
  std::unique_ptr<MasterStore> store;  // null: a view lives in the peers' memory alone
  std::size_t runs_max = limits::runs_max;
};

struct MasterEvent {
  std::int64_t wall_ms = 0;
  std::string run, text;
};

// What it does now, for people.
struct MasterReport {
  std::map<std::string, RunReport> runs;
  std::deque<MasterEvent> events;  // the last ones, the newest behind
  std::uint64_t events_written = 0;
};

struct RosterStatus {
  View view;
  std::uint32_t waiting = 0;
};

struct MasterStatus {
  std::map<Role, RosterStatus> rosters;      // of the run without a name
  std::map<std::string, std::size_t> peers;  // by run: members and those at the door, of all roles
  std::uint64_t departures = 0;              // how often peers were fewer than before
  std::string fenced;                        // why it serves no more: another master has its runs
};

class MasterRuntime final : net::Connection::Handler {
 public:
  static Result<std::unique_ptr<MasterRuntime>> create(MasterOptions options);
  ~MasterRuntime() { stop(); }

  Address address() const { return address_; }
  std::vector<Address> reachable() const;  // what peers can dial
  MasterStatus status() const;
  // By its thread; nothing when that has not answered in time.
  std::optional<MasterReport> report(Duration timeout) const;
  // Any thread. From then on nothing is sent any more, unless it is moved on before: for who holds a lease.
  void serve_until(Instant end) {
    if (serve_until_.exchange(end) > end) hub_->call([] {});  // it may sleep for longer
  }
  void fence(const std::string& why);  // any thread: serves no more, from its next turn on
  void stop();

 private:
  MasterRuntime(MasterOptions options, std::unique_ptr<Hub> hub)
      : options_(std::move(options)), hub_(std::move(hub)) {}
  struct Stranger {
    Instant since = 0;
  };
  void run();
  void accept(net::Accepted accepted);
  Roster* roster_of(ConnectionId id, const ToMaster& message);
  void say_unread(const MasterStore::Records& records);
  std::optional<Error> restore_runs();
  Result<Roster*> roster_for(const std::string& run, Role role);
  Result<Roster*> begin_roster(const std::string& run, Role role);
  Roster* start_roster(const std::string& run, MasterConfig config);
  Roster* hear_of(Roster& roster, const Register& message);
  Result<Roster*> begin_again_in_doubt(Roster& roster);
  void each_roster(const std::function<void(Roster&)>& action) const;
  void forget_runs();
  void forget_roster(Roster& roster);
  void drain(Roster& roster);
  void note_status(const Roster& roster);
  void apply(Roster&, master_effect::Send& e);
  void apply(Roster&, master_effect::Close& e);
  void apply(Roster& roster, master_effect::Knock& e);
  void apply(Roster& roster, master_effect::Persist& e);
  void apply(Roster& roster, master_effect::Notice& e);
  void send(ConnectionId id, const ToPeer& message);
  void close(ConnectionId id);
  void hear(ConnectionId id, const ToMaster& message);
  bool comes_early(ConnectionId id, const Join& join) const;
  void let_newcomers_in();
  void end_service(const std::string& why);
  bool may_serve();
  void log_line(const std::string& text);
  void note_event(const std::string& run, const std::string& text);
  void check_strangers(Instant now);
  Instant next_deadline() const;

  void on_ready(net::Connection& c) override;
  bool on_message(net::Connection& c, ByteView body) override;
  net::Landing on_payload(net::Connection&, wire::FrameKind, ByteView, std::size_t) override {
    return {.close = true};
  }
  void on_payload_end(net::Connection&) override {}
  void on_sent(net::Connection&, std::uint64_t) override {}
  void on_closed(net::Connection& c, const Error& why) override;

  static constexpr std::size_t events_max = 200;
  static constexpr Duration introduction_timeout = 5 * second;
  static constexpr Duration young_for = second;  // members dial several times meanwhile
  MasterOptions options_;
  std::unique_ptr<Hub> hub_;
  net::SocketAddress bound_;
  Address address_;
  std::map<std::string, MasterRun> runs_;      // I/O thread only, as all below
  std::map<ConnectionId, Roster*> roster_of_;  // of those who have introduced themselves
  std::map<ConnectionId, net::Connection*> connections_;
  std::map<const net::Connection*, ConnectionId> ids_;
  std::map<ConnectionId, Stranger> strangers_;  // have not introduced themselves yet
  Strangers from_where_;                        // the same, by their addresses
  StrangerLog stranger_log_{options_.log};
  std::map<ConnectionId, Instant> closing_;  // told why, and given a moment to read it
  std::map<ConnectionId, Join> newcomers_;   // wait until the members of an older run would be here
  Instant young_until_ = 0;
  ConnectionId next_id_ = 1;
  bool stop_ = false, somebody_went_ = false;
  std::deque<MasterEvent> events_;
  std::uint64_t events_written_ = 0;
  std::atomic<Instant> serve_until_ = never;
  mutable std::mutex status_mutex_;  // guards status_
  MasterStatus status_;
  int owner_process_ = 0;
  std::mutex stop_mutex_;  // guards thread_
  std::unique_ptr<std::thread> thread_;
};

}  // namespace pccl
