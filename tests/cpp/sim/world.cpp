#include "sim/world.hpp"

#include <algorithm>
#include <cstdio>

namespace pccl::sim {

namespace {
// Longer than every time-out of the protocol together: what is not over then never will be.
constexpr Duration patience = 200 * second;
constexpr std::uint64_t events_max = 2'000'000;
}  // namespace

std::string text(ViewId id) { return std::to_string(id.incarnation) + "." + std::to_string(id.number); }

std::string World::text(const View& view) const {
  auto all = sim::text(view.id) + "[";
  for (const auto& m : view.members) {
    if (all.back() != '[') all += ',';
    all += name_of(m.peer);
  }
  return all + "]";
}

World::World(Scenario drawn, int trace)
    : scenario(std::move(drawn)),
      rng(mix64(scenario.seed) ^ 0x7ac7),
      oracle(*this),
      links(*this),
      controls(*this),
      trace_(trace) {
  store.kept = scenario.store;
}

void World::violated(const std::string& what) {
  if (tracing()) note("VIOLATED: " + what);
  if (violation_.empty()) violation_ = what;
}

void World::note(const std::string& line) {
  if (trace_ > 0) std::printf("%12.3f ms %s\n", double(now()) / 1e6, line.c_str());
  if (recording_) notes_.push_back(line);
}

Duration World::delay(const Delays& delays, const Process&) {
  auto d = delays.least + Duration(rng.below(std::uint64_t(delays.spread)));
  if (delays.tail_chance > 0 && rng.chance(delays.tail_chance))
    d += Duration(rng.below(std::uint64_t(delays.tail)));
  return d;
}

// What a program does between two calls: mostly next to nothing, sometimes long enough that others ask who is
// missing.
Duration World::think(const Process&) {
  if (rng.chance(scenario.shape.slow_start)) return Duration(rng.below(1500 * millisecond));
  return Duration(rng.below(30 * microsecond));
}

std::uint32_t World::index_of(PeerId peer) const {
  for (const auto& process : processes_)
    if (process->session.peer() == peer) return process->index;
  return processes_max;
}

Process* World::process_at(std::uint32_t port) {
  return port >= 1 && port <= processes_.size() ? processes_[port - 1].get() : nullptr;
}

// ---- a run ----

Process& World::add_process(const std::string& island, std::uint16_t rank, std::uint16_t size,
                            std::uint32_t min_islands, Role role) {
  const auto index = std::uint32_t(processes_.size());
  Join join;
  join.island = island;
  join.island_rank = rank;
  join.island_size = size;
  join.group = rank;
  join.role = role;
  join.min_islands = min_islands;
  join.reachable_at = {{"sim", std::uint16_t(index + 1)}};
  join.host = "sim";
  join.process = index + 1;
  join.host_id = numbered('h', mix64(scenario.seed + index) % scenario.hosts);
  processes_.push_back(std::make_unique<Process>(*this, index, std::move(join)));
  return *processes_.back();
}

void World::start() {
  start_master(false);
  for (std::uint32_t i = 0; i < scenario.islands; ++i)
    for (std::uint32_t rank = 0; rank < scenario.island_size; ++rank) {
      const auto island = scenario.island_size > 1 ? "island-" + std::to_string(i) : std::string();
      controls.dial(
          add_process(island, std::uint16_t(rank), std::uint16_t(scenario.island_size), scenario.islands));
    }
  for (std::uint32_t i = 0; i < scenario.keepers; ++i)
    controls.dial(add_process("", 0, 1, scenario.keepers, Role::keeper));
}

std::string World::run() {
  start();
  auto fault = scenario.faults.begin();
  Instant quiet_since = 0;
  while (violation_.empty()) {
    if (fault != scenario.faults.end() && queue.handled() >= fault->at_event) {
      apply(*fault++);
      quiet_since = now();
      continue;
    }
    if (settled()) break;
    if (queue.empty() || now() - quiet_since > patience || queue.handled() > events_max) {
      violated("it hangs at " + std::to_string(now() / millisecond) + " ms after " +
               std::to_string(queue.handled()) + " events\n" + dump());
      break;
    }
    queue.step();
  }
  if (violation_.empty()) oracle.settled();
  return violation_;
}

bool World::settled() const {
  return std::all_of(processes_.begin(), processes_.end(),
                     [](const auto& p) {
                       return !p->alive || p->finished() || p->over() ||
                              p->session.stage() != Session::Stage::member;
                     }) &&
         std::any_of(processes_.begin(), processes_.end(), [](const auto& p) {
           return p->session.stage() == Session::Stage::member || !p->alive || p->over();
         });
}

// And nothing takes so long that a living peer seems dead.
bool World::only_links_fail() const {
  return !recording_ && std::max(scenario.control.tail, scenario.data.tail) < 400 * millisecond &&
         std::all_of(
             scenario.faults.begin(), scenario.faults.end(),
             [](const Fault& fault) {
               return fault.kind == FaultKind::link_loss || fault.kind == FaultKind::half_open ||
                      fault.kind == FaultKind::broken_attempt || fault.kind == FaultKind::join;
             });
}

std::string World::dump() {
  std::string all;
  for (const auto& master : masters_) all += "  " + master->describe() + "\n";
  for (const auto& process : processes_) all += "  " + process->describe() + "\n";
  return all;
}

// ---- masters ----

MasterHost& World::start_master(bool restarted) {
  MasterConfig config;
  config.timing = scenario.timing;
  config.rules = scenario.rules;
  config.run = restarted ? 0 : 77;
  config.restarted = restarted;
  masters_.push_back(std::make_unique<MasterHost>(*this, std::uint32_t(masters_.size()), config));
  note(masters_.back()->name() + (restarted ? " is started after another" : " is started"));
  return *masters_.back();
}

void World::end_master() {
  for (auto& master : masters_)
    if (master->alive) {
      note(master->name() + " dies");
      master->end();
      master_died_ = true;
    }
}

MasterHost* World::master_for(const Process& process) {
  const auto it = other_master_.find(process.index);
  auto& master = it == other_master_.end() ? masters_.back() : masters_[it->second];
  return master->alive ? master.get() : nullptr;
}

}  // namespace pccl::sim
