#include "sim/master_host.hpp"

#include <algorithm>

#include "sim/world.hpp"

namespace pccl::sim {

MasterHost::MasterHost(World& world, std::uint32_t number, const MasterConfig& config)
    : index(number), world_(world) {
  for (const auto role : {Role::trainer, Role::keeper}) {
    if (role == Role::keeper && world.scenario.keepers == 0) continue;
    auto own = config;
    own.role = role;
    if (role == Role::keeper && own.run != 0) ++own.run;
    if (const auto it = world.store.stored.find(role); world.store.kept && it != world.store.stored.end())
      own.stored = it->second;
    masters_.try_emplace(role, std::move(own), world.now());
  }
  arm();
}

void MasterHost::on(ConnectionId connection, const ToMaster& message) {
  const auto role = roles_.try_emplace(connection, role_of(message)).first->second;
  masters_.at(role).on(connection, message, world_.now());
  tell_each_other();
  after_event();
}

void MasterHost::on_closed(ConnectionId connection) {
  const auto role = roles_.extract(connection);
  if (role.empty()) return;  // nobody heard anything from it
  masters_.at(role.mapped()).on_closed(connection, world_.now());
  tell_each_other();
  after_event();
}

void MasterHost::tell_each_other() {
  for (auto& [role, master] : masters_) {
    auto worst = Doubt::none;
    for (const auto& [other, theirs] : masters_)
      if (other != role) worst = std::max(worst, theirs.doubt());
    master.on_others(worst, world_.now());
  }
}

void MasterHost::end() {
  alive = false;
  world_.controls.master_ended(*this);
}

// A master that handles several events before it writes is as legitimate as one that writes after each.
void MasterHost::after_event() {
  if (world_.scenario.prompt || world_.rng.chance(0.7)) {
    flush();
  } else if (!std::exchange(flush_pending_, true)) {
    world_.queue.after(Duration(world_.rng.below(100 * microsecond)), [this] {
      flush_pending_ = false;
      if (alive) flush();
    });
  }
  arm();
}

void MasterHost::flush() {
  for (auto& [role, master] : masters_)
    for (auto& e : master.take_effects()) std::visit([&, of = role](auto& x) { apply(of, x); }, e);
}

void MasterHost::apply(Role role, master_effect::Send& e) {
  if (const auto* view = std::get_if<ViewMessage>(&e.message)) {
    world_.oracle.announced(index, role, view->view);
    lets_pass(e.to, view->view.boundaries);
  }
  if (const auto* passed = std::get_if<Passed>(&e.message)) lets_pass(e.to, passed->boundaries);
  world_.controls.send(e.to, std::move(e.message));
}

void MasterHost::lets_pass(ConnectionId to, std::uint32_t boundaries) {
  auto& process = *world_.controls.at(std::uint32_t(to - 1)).process;
  if (process.control == std::uint32_t(to - 1)) world_.oracle.lets_pass(process, boundaries);
}

void MasterHost::apply(Role, master_effect::Close& e) { world_.controls.close(e.connection); }

// The master's host reaches every living process, also one whose control connection broke.
void MasterHost::apply(Role role, master_effect::Knock& e) {
  if (e.addresses.empty()) return;
  auto* target = world_.process_at(e.addresses.front().port);
  if (target == nullptr) return;
  world_.queue.after(world_.data_delay(*target), [this, target, role, peer = e.peer] {
    if (!alive || target->alive || target->silent) return;
    masters_.at(role).on_refused(peer, world_.now());
    after_event();
  });
}

void MasterHost::apply(Role role, master_effect::Persist& e) {
  if (world_.store.kept) world_.store.stored[role] = Stored{e.incarnation, e.view};
}

void MasterHost::apply(Role role, master_effect::Notice& e) {
  world_.note(name() + (role == Role::keeper ? ": keepers: " : ": ") + e.text);
}

std::string MasterHost::describe() const {
  auto all = name() + (alive ? "" : " (dead)");
  for (const auto& [role, master] : masters_)
    all += std::string("; ") + pccl::name(role) + "s " + world_.text(master.view()) + ", boundary " +
           std::to_string(master.view().boundaries) + (master.recovering() ? ", recovering" : "");
  return all;
}

void MasterHost::arm() {
  auto at = never;
  for (const auto& [role, master] : masters_) at = std::min(at, master.next_deadline());
  if (!alive || at >= tick_at_) return;
  tick_at_ = std::max(at, world_.now());
  world_.queue.at(tick_at_, [this, when = tick_at_] { tick(when); });
}

void MasterHost::tick(Instant at) {
  if (!alive || at != tick_at_) return;
  tick_at_ = never;
  if (world_.now() - idle_since_ > millisecond) idle_since_ = world_.now(), idle_ticks_ = 0;
  if (++idle_ticks_ > 200) return world_.violated("the master is busy doing nothing");
  for (auto& [role, master] : masters_)
    if (world_.now() >= master.next_deadline()) master.tick(world_.now());
  tell_each_other();
  after_event();
}

}  // namespace pccl::sim
