// One simulated peer: the production session and exchange, symbolic memory, and the user's program on top.
#pragma once
#include <map>
#include <memory>
#include <set>

#include "runtime/exchange.hpp"
#include "sim/data_plane.hpp"
#include "sim/program.hpp"
#include "sim/queue.hpp"
#include "sim/shared_state.hpp"

namespace pccl::sim {

class World;

class Process {
 public:
  Process(World& world, std::uint32_t index, Join join);

  World& world() const { return world_; }
  Instant now() const;
  std::string name() const { return numbered('p', index); }
  std::string describe() const;  // one line for a person who looks for what hangs
  bool over() const { return session.stage() == Session::Stage::gone; }
  bool finished() const { return state_ == State::finished; }
  void drain();    // does what the session and the exchange want done
  void arm();      // the next tick
  void advance();  // the program goes on as far as it can
  void enter_boundary(std::uint32_t islands, std::uint32_t probe_ms = 0);
  std::uint32_t boundaries() const { return boundary_; }
  bool impatient() const { return impatient_; }
  Result<OpKey> post(const Intent& intent);
  void cancel(const OpKey& key);
  void complete(const OpKey& key);
  void wake(PeerId peer) { woken_.insert(peer); }  // something may be sent to it when all effects are done
  void end(bool silently);                         // killed, or it has ended by itself

  const std::uint32_t index;
  Session session;
  Exchange exchange;
  DataPlane data;
  SharedStates states;
  bool alive = true, silent = false, reaches_others = true, scripted = false;
  bool oversleeps = false;  // it does not say that its part of an operation is complete
  std::vector<OpKey> overslept;
  bool cut_off = false;               // it does not reach the master
  Instant paused_until = 0;           // 0: it is not
  std::vector<Action> missed;         // while it was paused
  std::map<PeerId, LinkIndex> links;  // those that this end believes in
  std::map<PeerId, std::uint64_t> dialling;
  std::uint64_t dials = 0;
  std::uint32_t control = UINT32_MAX;  // connection to a master that this end believes in

 private:
  enum class State : std::uint8_t { outside, posting, waiting, at_boundary, finished };
  struct Running {
    Intent intent;
    PeerId root = no_peer;  // of a broadcast
  };

  void apply(effect::SendMaster& e);
  void apply(effect::ReconnectMaster& e);
  void apply(effect::Dial& e);
  void apply(effect::HangUp& e);
  void apply(effect::DropAttempt& e);
  void apply(effect::StartAttempt& e);
  void apply(effect::FailedEarly& e) { exchange.failed_early(e.key); }
  void apply(effect::ViewChanged& e);
  void apply(effect::Deliver& e);
  void apply(effect::Elected& e);
  void apply(effect::Admitted& e);
  void apply(effect::BoundaryPassed& e);
  void apply(effect::BoundaryFailed& e);
  void apply(effect::Gone& e);
  void apply(effect::Probe& e);
  void apply(effect::Notice& e);
  void apply(exchange_effect::SendReady& e);
  void apply(exchange_effect::Do& e);
  void apply(exchange_effect::Wake& e);
  void apply(exchange_effect::Complete& e);
  void apply(exchange_effect::More& e);
  void apply(exchange_effect::Mismatch& e);
  void apply(exchange_effect::Replay& e);
  void apply(exchange_effect::Discard& e);

  std::pair<PeerId, PeerId> ends_of(const Intent& intent) const;
  bool takes_part(const Intent& intent) const;
  void start_round();
  void post_next();
  void next_batch();
  void cross();
  void walk_away();
  MeasuredLink draw_link(PeerId peer);
  void tick(Instant at);

  World& world_;
  State state_ = State::outside;
  bool draining_ = false;
  Instant tick_at_ = never;
  std::uint32_t idle_ticks_ = 0;
  Instant idle_since_ = 0;
  std::vector<ExchangeEffect> exchange_effects_;
  std::set<PeerId> woken_;

  Round round_;
  std::uint32_t boundary_ = 0, rounds_ = 0;  // rounds since the boundary
  bool impatient_ = false;                   // at this boundary
  std::size_t batch_ = 0;
  std::vector<std::size_t> to_post_;  // of the batch, in this process's order
  std::vector<PeerId> group_;         // when the round began
  std::map<OpKey, Running> running_;
  std::set<OpKey> held_;  // the attempt was complete, and has not been dropped since
};

}  // namespace pccl::sim
