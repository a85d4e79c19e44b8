// Connections between processes and masters: in order, may break, each side learns at its own time and what
// was on its way is partly lost. Peers dial again.
#pragma once
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.hpp"
#include "protocol/effects.hpp"

namespace pccl::sim {

class World;
class Process;
class MasterHost;

struct Control {
  ConnectionId id = no_connection;
  Process* process = nullptr;
  MasterHost* master = nullptr;
  bool peer_open = true, master_open = true;  // what each side believes
  bool broken = false;
  std::deque<std::optional<ToMaster>> up;  // nothing: the sender closed
  std::deque<std::optional<ToPeer>> down;
  Instant up_busy = 0, down_busy = 0;
};

class Controls {
 public:
  explicit Controls(World& world) : world_(world) {}

  void dial(Process& process);
  void send(Process& process, ToMaster message);
  void send(ConnectionId connection, ToPeer message);
  void close(ConnectionId connection);  // by the master, after what was sent
  void reconnect(Process& process);
  void leave(Process& process);  // its session is over: last words still arrive
  void lose(std::uint32_t control);
  void process_ended(Process& process, bool silent);
  void master_ended(MasterHost& master);
  std::vector<std::uint32_t> up() const;
  Control& at(std::uint32_t control) { return *controls_[control]; }

 private:
  void arrive_dial(Process& process);
  void push_up(std::uint32_t index, std::optional<ToMaster> message);
  void push_down(std::uint32_t index, std::optional<ToPeer> message);
  void deliver_up(std::uint32_t index);
  void deliver_down(std::uint32_t index);
  void peer_learns(std::uint32_t index);
  void master_learns(std::uint32_t index);

  World& world_;
  std::vector<std::unique_ptr<Control>> controls_;
};

}  // namespace pccl::sim
