// A simulated master: the production state machine, its store, and effects that leave in order, sometimes in
// batches.
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
  std::optional<Stored> stored;
};

class MasterHost {
 public:
  MasterHost(World& world, std::uint32_t index, MasterConfig config);

  void on(ConnectionId connection, const ToMaster& message);
  void on_closed(ConnectionId connection);
  void end();
  std::string name() const { return numbered('m', index); }

  const std::uint32_t index;
  Master master;
  bool alive = true;

 private:
  void after_event();
  void flush();
  void arm();
  void tick(Instant at);
  void lets_pass(ConnectionId to, std::uint32_t boundaries);
  void apply(master_effect::Send& e);
  void apply(master_effect::Close& e);
  void apply(master_effect::Knock& e);
  void apply(master_effect::Persist& e);
  void apply(master_effect::Notice& e);

  World& world_;
  Instant tick_at_ = never;
  bool flush_pending_ = false;
  std::uint32_t idle_ticks_ = 0;
  Instant idle_since_ = 0;
};

}  // namespace pccl::sim
