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

namespace {

// Islands of one role's view, of which some come to a new master.
struct Split {
  const View* view;
  std::vector<std::string> islands{};  // in the order of their first members
  std::set<std::string> moved{};

  // With so many the new master goes on.
  bool enough() const {
    return 2 * moved.size() > islands.size() ||
           (2 * moved.size() == islands.size() && !moved.empty() && moved.contains(islands.front()));
  }
};

std::vector<Split> split(const MasterHost& master, std::uint64_t draw) {
  std::vector<Split> roles;
  for (const auto& [role, state] : master.masters()) {
    auto& of_role = roles.emplace_back(Split{&state.view()});
    for (const auto& m : of_role.view->members) {
      if (std::ranges::find(of_role.islands, m.island) != of_role.islands.end()) continue;
      of_role.islands.push_back(m.island);
      if (draw & 1) of_role.moved.insert(m.island);
      draw >>= 1;
    }
  }
  const bool nobody = std::ranges::all_of(roles, [](const Split& s) { return s.moved.empty(); });
  if (nobody && !roles.front().islands.empty()) roles.front().moved.insert(roles.front().islands.back());
  return roles;
}

}  // namespace

// Some islands come to a new master while the others stay with the old one. Where those of any role are as
// many as the new one needs to go on, the old one is really dead: nothing could keep two such halves
// together.
void World::second_master(std::uint64_t draw) {
  const auto& old = *masters_.back();
  const bool settled =
      std::ranges::none_of(old.masters(), [](const auto& of) { return of.second.recovering(); });
  if (store.kept || !old.alive || masters_.size() > 1 || !settled) return;
  const auto roles = split(old, draw);
  if (roles.front().islands.empty()) return;
  if (std::ranges::any_of(roles, [](const Split& s) { return s.enough(); }))
    return apply({FaultKind::master_restart, 0, draw, 0});
  std::set<PeerId> moved;
  for (const auto& role : roles)
    for (const auto& m : role.view->members)
      if (role.moved.contains(m.island)) moved.insert(m.peer);
  for (const auto& process : processes_) other_master_[process->index] = old.index;
  for (const auto peer : moved) other_master_.erase(index_of(peer));
  start_master(true);
  for (const auto peer : moved)
    if (auto& process = *processes_[index_of(peer)]; process.control != UINT32_MAX)
      controls.lose(process.control);
}

}  // namespace pccl::sim
