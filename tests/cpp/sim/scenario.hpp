// One schedule: everything that happens beside the production code is drawn from a flavour and a seed.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/rng.hpp"
#include "protocol/rules.hpp"
#include "protocol/timing.hpp"
#include "wire/types.hpp"

namespace pccl::sim {

// "p3": processes, links and masters as people count them, from 1.
inline std::string numbered(char kind, std::size_t index) {
  std::string text(1, kind);
  text += std::to_string(index + 1);
  return text;
}

enum class FaultKind : std::uint8_t {
  kill,          // its kernel closes its connections; nobody listens there any more
  silent_kill,   // power or network is gone: nothing breaks, nothing answers
  pause,         // stopped for a while, then goes on as if nothing had been
  link_loss,     // a data link breaks, each end learns at its own time
  half_open,     // a data link breaks, and only one end learns
  control_loss,  // a connection to the master breaks
  master_restart,
  second_master,  // a master starts while the old one lives on for some peers
  join,
  unreachable_join,
  broken_attempt,  // the data plane of one peer gives up an attempt
  restart,         // an island comes again under its name, while the old one is dying, silent or well
};
const char* name(FaultKind kind);

struct Fault {
  FaultKind kind = FaultKind::kill;
  std::uint64_t at_event = 0;
  std::uint64_t draw = 0;  // picks the victim among those that live then
  Duration length = 0;
};

// How long things take. Now and then one takes much longer.
struct Delays {
  Duration least = 20 * microsecond, spread = 200 * microsecond, tail = 5 * millisecond;
  double tail_chance = 0.02;
};

// What the peers' programs look like.
struct Shape {
  std::uint32_t boundaries = 6;  // non-skipped boundaries until the end
  std::uint32_t rounds_max = 3;  // rounds between two of them, each ended by update_topology()
  std::uint32_t batches_max = 3, operations_max = 4;
  std::uint32_t kib_max = 48;
  double in_place = 0.5, broadcast = 0.15, barrier = 0.1, sync_state = 0.1, weighted = 0.15, run_scope = 0.3;
  double raise = 0.05, remake = 0.1, cancel = 0.03, timeout = 0.03, several_tensors = 0.3, named = 0.4,
         slow_start = 0.02;
  double blocks = 0.15, transfers = 0.12;  // of what is left
  double impatient = 0.05;                 // times out of update_topology() or leaves it, and comes back
  double sloppy = 0;                       // calls update_topology() before it has waited for its operations
  double leave = 0.3;
  double report = 0.02, probe = 0.01;  // what links are like, after an operation; or measured by all
};

struct Flavour {
  std::string name = "mixed";
  double island_runs = 0.35;  // 2 islands of 2 ranks; else plain peers
  std::uint32_t peers_min = 2, peers_max = 4;
  std::uint32_t faults_min = 0, faults_max = 4;
  std::vector<double> weights = {3, 1, 1, 2, 2, 2, 2, 0.5, 2, 0.3, 0.5};  // by FaultKind
  double store = 0.5, keepers = 0.1;
  bool one_role = false;        // only peers of one role are struck, and those of the other must not notice
  std::uint64_t events = 3000;  // faults come within so many
  double tail_chance_max = 0.05;
  Duration tail_max = 400 * millisecond;
  double slow_control = 0.2;  // verdicts and views take much longer than data
  Shape shape;
};

struct Scenario {
  std::uint64_t seed = 1;
  std::string flavour;
  Rules rules;
  Timing timing;
  std::uint32_t islands = 3, island_size = 1;
  std::uint32_t hosts = 2;  // that islands are spread over
  bool store = true;
  std::uint32_t keepers = 0;   // more processes, with the same program among themselves
  std::optional<Role> struck;  // nothing happens to peers of another role
  bool through_codec = false;  // every message is encoded and decoded on its way
  bool prompt = false;         // the master writes after every event
  bool split_frames = false;   // a frame's header and its end are two events
  std::uint32_t frames_in_flight = 2;
  std::uint32_t eager_kib = 16, slots = 64;
  std::uint32_t head_start_kib = 0;  // 0: links are short
  Delays data, control;
  Shape shape;
  std::vector<Fault> faults;
};

Scenario draw(const Flavour& flavour, std::uint64_t seed, const Rules& rules = {});

}  // namespace pccl::sim
