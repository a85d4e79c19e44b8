// What may go wrong in a schedule.
#include <algorithm>

#include "sim/world.hpp"

namespace pccl::sim {

Process* World::victim(std::uint64_t draw) {
  std::vector<Process*> living;
  for (const auto& process : processes_)
    if (process->alive && !process->over() && struck(*process)) living.push_back(process.get());
  return living.empty() ? nullptr : living[draw % living.size()];
}

bool World::struck(const Process& process) const {
  return !scenario.struck || process.session.identity().role == *scenario.struck;
}

void World::apply(const Fault& fault) {
  auto* process = victim(fault.draw);
  if (process == nullptr) return;
  note(std::string("FAULT ") + name(fault.kind) + " (" + process->name() + ")");
  const auto draw = fault.draw >> 8;
  switch (fault.kind) {
    case FaultKind::kill:
      return process->end(false);
    case FaultKind::silent_kill:
      return process->end(true);
    case FaultKind::pause:
      return pause(*process, fault.length);
    case FaultKind::link_loss:
    case FaultKind::half_open: {
      auto up = links.up();
      std::erase_if(up, [this](LinkIndex link) { return !struck(*links.at(link).ends[0].process); });
      if (up.empty()) return;
      const bool both = fault.kind == FaultKind::link_loss;
      return links.lose(up[draw % up.size()], both || draw & 0x100, both || !(draw & 0x100));
    }
    case FaultKind::control_loss: {
      auto up = controls.up();
      std::erase_if(up, [this](std::uint32_t control) { return !struck(*controls.at(control).process); });
      if (!up.empty()) controls.lose(up[draw % up.size()]);
      return;
    }
    case FaultKind::master_restart: {
      end_master();
      queue.after(std::min(fault.length, 2500 * millisecond), [this] {
        if (!masters_.back()->alive) start_master(true);
      });
      return;
    }
    case FaultKind::second_master:
      return second_master(draw);
    case FaultKind::join:
      return join(draw, true);
    case FaultKind::unreachable_join:
      return join(draw, false);
    case FaultKind::broken_attempt: {
      if (process->session.operations().empty()) return;
      process->session.attempt_broken(process->session.operations().begin()->first, no_peer, "drawn", now());
      return process->drain();
    }
    case FaultKind::restart:
      return restart(*process, draw);
  }
}

void World::pause(Process& process, Duration length) {
  const bool paused = process.paused_until != 0;
  process.paused_until = std::max(process.paused_until, now() + 1 + length);
  if (!paused) queue.at(process.paused_until, [this, &process] { resume(process); });
}

void World::resume(Process& process) {
  if (now() < process.paused_until)
    return queue.at(process.paused_until, [this, &process] { resume(process); });
  process.paused_until = 0;
  for (auto& action : std::exchange(process.missed, {})) action();
}

void World::join(std::uint64_t draw, bool reachable) {
  const bool may_keep = scenario.keepers > 0 && (draw >> 20 & 1) != 0;
  const auto role = scenario.struck.value_or(may_keep ? Role::keeper : Role::trainer);
  const bool ranks = role == Role::trainer && scenario.island_size > 1;
  join_as(ranks ? "joiner-" + std::to_string(joined_islands_++) : std::string(), reachable, draw, role);
}

// Whoever starts processes again does not know how the old ones are: one of them was killed, or all are
// silent, or nothing is wrong with them and the name was given twice.
void World::restart(Process& process, std::uint64_t draw) {
  const auto role = process.session.identity().role;
  const bool ranks = role == Role::trainer && scenario.island_size > 1;
  const auto island = ranks ? process.session.identity().island : std::string();
  const auto how = draw % 8;
  for (const auto& other : processes_)
    if (how >= 4 && how < 7 && !island.empty() && other->session.identity().island == island)
      other->end(how == 4);
  if (how < 4) process.end(how == 0);
  join_as(island, true, draw, role);
}

void World::join_as(const std::string& island, bool reachable, std::uint64_t draw, Role role) {
  const auto size = role == Role::trainer ? scenario.island_size : 1;
  if (processes_.size() + size > processes_max) return;
  for (std::uint32_t rank = 0; rank < size; ++rank) {
    auto& process = add_process(island, std::uint16_t(rank), std::uint16_t(size), 1, role);
    process.reaches_others = reachable || rank != draw % size;
    for_process(process, Duration(rng.below(5 * millisecond)), [this, &process] { controls.dial(process); });
  }
}

// Some islands come to a new master while the others stay with the old one. Where those are as many as the
// new one needs to go on, the old one is really dead: nothing could keep two such halves together.
void World::second_master(std::uint64_t draw) {
  // Of a role of which nobody comes to the new one, a newcomer would begin another run there.
  if (scenario.keepers > 0) return;
  const auto& old = *masters_.back();
  const auto& view = old.trainers().view();
  if (store.kept || !old.alive || old.trainers().recovering() || view.members.empty() || masters_.size() > 1)
    return;
  std::vector<std::string> islands;
  for (const auto& m : view.members)
    if (std::find(islands.begin(), islands.end(), m.island) == islands.end()) islands.push_back(m.island);
  std::set<std::string> moved;
  for (std::size_t i = 0; i < islands.size(); ++i)
    if (draw >> i & 1) moved.insert(islands[i]);
  if (moved.empty()) moved.insert(islands.back());
  const bool enough = 2 * moved.size() > islands.size() ||
                      (2 * moved.size() == islands.size() && moved.contains(islands.front()));
  if (enough) return apply({FaultKind::master_restart, 0, draw, 0});
  for (const auto& process : processes_) other_master_[process->index] = old.index;
  for (const auto& m : view.members)
    if (moved.contains(m.island)) other_master_.erase(index_of(m.peer));
  start_master(true);
  for (const auto& m : view.members)
    if (auto& process = *processes_[index_of(m.peer)];
        moved.contains(m.island) && process.control != UINT32_MAX)
      controls.lose(process.control);
}

}  // namespace pccl::sim
