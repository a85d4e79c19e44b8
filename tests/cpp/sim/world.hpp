// One schedule in simulated time: processes, masters, links, faults and the oracle, driven by one queue and
// one seed.
#pragma once
#include <memory>

#include "sim/controls.hpp"
#include "sim/links.hpp"
#include "sim/master_host.hpp"
#include "sim/oracle.hpp"
#include "sim/process.hpp"
#include "sim/queue.hpp"
#include "sim/scenario.hpp"

namespace pccl::sim {

std::string text(ViewId id);

class World {
 public:
  explicit World(Scenario scenario, int trace = 0);

  void start();                            // a master, and the peers that join at first
  std::string run();                       // empty: all held; else what did not
  void violated(const std::string& what);  // the first one counts
  const std::string& violation() const { return violation_; }
  bool tracing(int detail = 1) const { return trace_ >= detail || (recording_ && detail == 1); }
  void note(const std::string& line);
  void record() { recording_ = true; }
  std::vector<std::string> take_notes() { return std::exchange(notes_, {}); }
  std::string dump();

  Instant now() const { return queue.now(); }
  // For a process that is paused it happens when it goes on, in the same order.
  template <class F> void for_process(Process& process, Duration delay, F action) {
    queue.after(delay, [&process, action] {
      if (process.paused_until == 0)
        action();
      else
        process.missed.emplace_back(action);
    });
  }
  Duration data_delay(const Process& process) { return delay(scenario.data, process); }
  Duration control_delay(const Process& process) { return delay(scenario.control, process); }
  Duration transfer_time() { return Duration(rng.below(std::uint64_t(20 * millisecond) >> rng.below(8))); }
  Duration transmit_delay() { return Duration(rng.below(10 * microsecond)); }
  Duration think(const Process& process);

  Process& add_process(const std::string& island, std::uint16_t rank, std::uint16_t size,
                       std::uint32_t min_islands, Role role = Role::trainer);
  Process& process(std::uint32_t index) { return *processes_[index]; }
  std::uint32_t processes() const { return std::uint32_t(processes_.size()); }
  Process* process_at(std::uint32_t port);
  std::uint32_t index_of(PeerId peer) const;
  std::string name_of(PeerId peer) const { return numbered('p', index_of(peer)); }
  std::string text(const View& view) const;

  MasterHost* master_for(const Process& process);
  MasterHost& start_master(bool restarted);
  void end_master();
  bool master_died() const { return master_died_; }
  void apply(const Fault& fault);
  bool settled() const;
  bool only_links_fail() const;
  bool struck(const Process& process) const;  // faults may hit it

  const Scenario scenario;
  Queue queue;
  Rng rng;
  Store store;
  Oracle oracle;
  Links links;
  Controls controls;

 private:
  Duration delay(const Delays& delays, const Process& process);
  void join(std::uint64_t draw, bool reachable);
  void join_as(const std::string& island, bool reachable, std::uint64_t draw, Role role);
  void restart(Process& process, std::uint64_t draw);
  void pause(Process& process, Duration length);
  void resume(Process& process);
  void second_master(std::uint64_t draw);
  Process* victim(std::uint64_t draw);

  std::vector<std::unique_ptr<Process>> processes_;
  std::vector<std::unique_ptr<MasterHost>> masters_;
  std::map<std::uint32_t, std::uint32_t> other_master_;  // process -> master, where it is not the newest
  std::uint32_t joined_islands_ = 0;
  bool master_died_ = false;
  int trace_ = 0;  // 2: with every frame
  bool recording_ = false;
  std::vector<std::string> notes_;
  std::string violation_;
};

}  // namespace pccl::sim
