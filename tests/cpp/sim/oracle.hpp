// What must always hold: noted as it happens, checked at once where possible and at the end for the rest.
#pragma once
#include <map>
#include <set>

#include "protocol/effects.hpp"
#include "sim/memory.hpp"
#include "sim/program.hpp"
#include "sim/shared_state.hpp"

namespace pccl::sim {

class World;
class Process;

class Oracle {
 public:
  explicit Oracle(World& world) : world_(world) {}

  void announced(std::uint32_t master, Role role, const View& view);
  void told(Process& process, const View& view);
  void admitted(Process& process);
  void posted(Process& process, const OpKey& key);
  void started(Process& process, const OpKey& key, ViewId view);
  void aborted(Process& process, const OpKey& key);
  void delivered(Process& process, const OpKey& key, const Intent& intent, PeerId root,
                 const Outcome& outcome, const Memory* memory, const Version& state);
  void lets_pass(Process& process, std::uint32_t boundaries);  // what a master sends to it
  void passed(Process& process, std::uint32_t boundaries, bool skipped);
  void boundary_failed(Process& process, const Error& why);
  void gone(Process& process, const Error& why);
  void settled();  // nothing moves any more: do all that live agree?

  std::uint64_t commits = 0, failures = 0, aborts = 0, joins = 0, skips = 0, ends = 0;

 private:
  struct Delivery {
    ErrorCode code = ErrorCode::none;
    std::set<std::uint32_t> contributors;  // processes
    std::uint32_t group = 0, waiting = 0;
    Version state{};  // after a synchronization
    ViewId view;      // the last that its process was told
  };
  struct Stay {
    Instant admitted = 0, gone = never;
  };
  struct Told {
    std::set<std::uint32_t> members, left;
    std::map<OpKey, ViewId> held;
  };
  std::set<std::uint32_t> processes_of(const std::vector<PeerId>& peers) const;
  bool met(std::uint32_t p, std::uint32_t q) const;
  void check_islands(const View& view, const std::string& who);
  void check_untouched(const Process& process, const std::string& what);
  void check_data(Process& process, const OpKey& key, Call call, std::uint32_t root,
                  const std::vector<PeerId>& contributors, const Delivery& delivery, const Memory* memory);
  bool right_blocks(Process& process, Call call, std::uint32_t root, const std::vector<PeerId>& by_rank,
                    const Memory& memory) const;
  void check_code(Process& process, const OpKey& key, const Intent& intent, const Error& error);
  std::string compare(const Delivery& a, const Delivery& b) const;

  World& world_;
  // By master and role: who is in its last view, and who had left before.
  std::map<std::pair<std::uint32_t, Role>, std::pair<std::set<PeerId>, std::set<PeerId>>> announced_;
  std::map<std::uint32_t, Told> told_;
  std::map<std::uint32_t, Stay> stays_;  // by process, as a member
  std::map<std::pair<Role, OpKey>, std::map<std::uint32_t, Delivery>> deliveries_;
};

}  // namespace pccl::sim
