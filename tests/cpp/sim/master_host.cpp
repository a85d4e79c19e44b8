#include "sim/master_host.hpp"

#include "sim/world.hpp"

namespace pccl::sim {

MasterHost::MasterHost(World& world, std::uint32_t number, MasterConfig config)
    : index(number), master(std::move(config), world.now()), world_(world) {
  arm();
}

void MasterHost::on(ConnectionId connection, const ToMaster& message) {
  master.on(connection, message, world_.now());
  after_event();
}

void MasterHost::on_closed(ConnectionId connection) {
  master.on_closed(connection, world_.now());
  after_event();
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
  for (auto& e : master.take_effects()) std::visit([&](auto& x) { apply(x); }, e);
}

void MasterHost::apply(master_effect::Send& e) {
  if (const auto* view = std::get_if<ViewMessage>(&e.message)) {
    world_.oracle.announced(index, view->view);
    lets_pass(e.to, view->view.boundaries);
  }
  if (const auto* passed = std::get_if<Passed>(&e.message)) lets_pass(e.to, passed->boundaries);
  world_.controls.send(e.to, std::move(e.message));
}

void MasterHost::lets_pass(ConnectionId to, std::uint32_t boundaries) {
  auto& process = *world_.controls.at(std::uint32_t(to - 1)).process;
  if (process.control == std::uint32_t(to - 1)) world_.oracle.lets_pass(process, boundaries);
}

void MasterHost::apply(master_effect::Close& e) { world_.controls.close(e.connection); }

// The master's host reaches every living process, also one whose control connection broke.
void MasterHost::apply(master_effect::Knock& e) {
  if (e.addresses.empty()) return;
  auto* target = world_.process_at(e.addresses.front().port);
  if (target == nullptr) return;
  world_.queue.after(world_.data_delay(*target), [this, target, peer = e.peer] {
    if (!alive || target->alive || target->silent) return;
    master.on_refused(peer, world_.now());
    after_event();
  });
}

void MasterHost::apply(master_effect::Persist& e) {
  if (world_.store.kept) world_.store.stored = Stored{e.incarnation, e.view};
}
void MasterHost::apply(master_effect::Notice& e) { world_.note(name() + ": " + e.text); }

void MasterHost::arm() {
  const auto at = master.next_deadline();
  if (!alive || at >= tick_at_) return;
  tick_at_ = std::max(at, world_.now());
  world_.queue.at(tick_at_, [this, when = tick_at_] { tick(when); });
}

void MasterHost::tick(Instant at) {
  if (!alive || at != tick_at_) return;
  tick_at_ = never;
  if (world_.now() - idle_since_ > millisecond) idle_since_ = world_.now(), idle_ticks_ = 0;
  if (++idle_ticks_ > 200) return world_.violated("the master is busy doing nothing");
  master.tick(world_.now());
  after_event();
}

}  // namespace pccl::sim
