// A simulated master: the production state machines, one for each role, their store, and effects that leave
// in order, sometimes in batches.
#pragma once
#include <optional>
#include <string>

#include "protocol/master.hpp"
#include "sim/scenario.hpp"

namespace pccl::sim {

class World;

// What outlives a master, if anything does.
struct Store {
  bool kept = false;
  std::map<Role, Stored> stored;
};

class MasterHost {
 public:
  MasterHost(World& world, std::uint32_t index, const MasterConfig& config);

  void on(ConnectionId connection, const ToMaster& message);
  void on_closed(ConnectionId connection);
  void end();
  std::string name() const { return numbered('m', index); }
  std::string describe() const;  // for a person who looks for what hangs

  const std::map<Role, Master>& masters() const { return masters_; }

  const std::uint32_t index;
  bool alive = true;

 private:
  void tell_each_other();
  void after_event();
  void flush();
  void arm();
  void tick(Instant at);
  void lets_pass(ConnectionId to, std::uint32_t boundaries);
  void apply(Role role, master_effect::Send& e);
  void apply(Role role, master_effect::Close& e);
  void apply(Role role, master_effect::Knock& e);
  void apply(Role role, master_effect::Persist& e);
  void apply(Role role, master_effect::Notice& e);

  World& world_;
  std::map<Role, Master> masters_;
  std::map<ConnectionId, Role> roles_;  // by what they first said
  Instant tick_at_ = never;
  bool flush_pending_ = false;
  std::uint32_t idle_ticks_ = 0;
  Instant idle_since_ = 0;
};

}  // namespace pccl::sim
