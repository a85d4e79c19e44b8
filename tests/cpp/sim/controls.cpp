#include "sim/controls.hpp"

#include "sim/master_host.hpp"
#include "sim/process.hpp"
#include "sim/world.hpp"
#include "wire/codec.hpp"

namespace pccl::sim {

namespace {

constexpr Duration redial_every = 20 * millisecond;

// What arrives is what was encoded: an honest message always passes its own decoder.
template <class Variant> Variant through_codec(World& world, Variant message) {
  if (!world.scenario.through_codec) return message;
  Bytes bytes;
  wire::encode(message, bytes);
  auto decoded = wire::decode<Variant>(bytes);
  if (decoded) return std::move(*decoded);
  world.violated("a message does not pass its own decoder");
  return message;
}

}  // namespace

void Controls::dial(Process& process) {
  auto* p = &process;
  world_.for_process(process, world_.control_delay(process), [this, p] { arrive_dial(*p); });
}

void Controls::arrive_dial(Process& process) {
  if (!process.alive || process.over() || process.control != UINT32_MAX) return;
  auto* master = process.cut_off ? nullptr : world_.master_for(process);
  if (master == nullptr) {
    auto* p = &process;
    return world_.for_process(process, redial_every, [this, p] { dial(*p); });
  }
  const auto index = std::uint32_t(controls_.size());
  controls_.push_back(std::make_unique<Control>());
  auto& control = *controls_.back();
  control.id = index + 1;
  control.process = &process;
  control.master = master;
  process.control = index;
  process.session.on_master_up(process.now());
  process.drain();
}

// ---- traffic ----

void Controls::send(Process& process, ToMaster message) {
  if (process.control != UINT32_MAX) push_up(process.control, through_codec(world_, std::move(message)));
}

void Controls::push_up(std::uint32_t index, std::optional<ToMaster> message) {
  auto& control = *controls_[index];
  if (control.broken) return;
  control.up_busy = std::max(control.up_busy, world_.now() + world_.control_delay(*control.process));
  control.up.push_back(std::move(message));
  world_.queue.at(control.up_busy, [this, index] { deliver_up(index); });
}

void Controls::deliver_up(std::uint32_t index) {
  auto& control = *controls_[index];
  if (control.up.empty()) return;
  auto message = std::move(control.up.front());
  control.up.pop_front();
  if (!control.master_open || !control.master->alive) return;
  if (!message) return master_learns(index);
  control.master->on(control.id, *message);
}

void Controls::send(ConnectionId connection, ToPeer message) {
  push_down(std::uint32_t(connection - 1), through_codec(world_, std::move(message)));
}

void Controls::push_down(std::uint32_t index, std::optional<ToPeer> message) {
  auto& control = *controls_[index];
  if (control.broken) return;
  auto& process = *control.process;
  control.down_busy = std::max(control.down_busy, world_.now() + world_.control_delay(process));
  control.down.push_back(std::move(message));
  world_.for_process(process, control.down_busy - world_.now(), [this, index] { deliver_down(index); });
}

void Controls::deliver_down(std::uint32_t index) {
  auto& control = *controls_[index];
  if (control.down.empty()) return;
  auto message = std::move(control.down.front());
  control.down.pop_front();
  if (!control.peer_open || !control.process->alive) return;
  if (!message) return peer_learns(index);
  control.process->session.on(*message, control.process->now());
  control.process->drain();
}

// ---- closing and loss ----

void Controls::peer_learns(std::uint32_t index) {
  auto& control = *controls_[index];
  auto& process = *control.process;
  if (!std::exchange(control.peer_open, false) || !process.alive) return;
  process.control = UINT32_MAX;
  process.session.on_master_down(process.now(), "connection reset");
  process.drain();
  if (!process.over()) dial(process);
}

void Controls::master_learns(std::uint32_t index) {
  auto& control = *controls_[index];
  if (!std::exchange(control.master_open, false) || !control.master->alive) return;
  control.master->on_closed(control.id);
}

void Controls::close(ConnectionId connection) {
  auto& control = *controls_[connection - 1];
  control.master_open = false;
  push_down(std::uint32_t(connection - 1), std::nullopt);
}

void Controls::reconnect(Process& process) {
  if (process.control == UINT32_MAX) return;
  const auto index = process.control;
  push_up(index, std::nullopt);
  peer_learns(index);
}

void Controls::leave(Process& process) {
  if (process.control == UINT32_MAX) return;
  controls_[process.control]->peer_open = false;
  push_up(process.control, std::nullopt);
  process.control = UINT32_MAX;
}

// Some of what is on its way still arrives, the rest never.
void Controls::lose(std::uint32_t index) {
  auto& control = *controls_[index];
  if (std::exchange(control.broken, true)) return;
  control.up.resize(world_.rng.below(control.up.size() + 1));
  control.down.resize(world_.rng.below(control.down.size() + 1));
  const auto now = world_.now();
  const auto peer_at = std::max(control.down_busy, now + world_.control_delay(*control.process));
  const auto master_at = std::max(control.up_busy, now + world_.control_delay(*control.process));
  world_.for_process(*control.process, peer_at - now, [this, index] { peer_learns(index); });
  world_.queue.at(master_at, [this, index] { master_learns(index); });
}

void Controls::process_ended(Process& process, bool silent) {
  for (std::uint32_t index = 0; index < controls_.size(); ++index) {
    auto& control = *controls_[index];
    if (control.process != &process) continue;
    control.peer_open = false;
    if (silent)
      control.broken = true;
    else
      lose(index);
  }
  process.control = UINT32_MAX;
}

void Controls::master_ended(MasterHost& master) {
  for (std::uint32_t index = 0; index < controls_.size(); ++index) {
    if (controls_[index]->master != &master) continue;
    controls_[index]->master_open = false;
    lose(index);
  }
}

std::vector<std::uint32_t> Controls::up() const {
  std::vector<std::uint32_t> all;
  for (std::uint32_t index = 0; index < controls_.size(); ++index)
    if (!controls_[index]->broken && controls_[index]->peer_open) all.push_back(index);
  return all;
}

}  // namespace pccl::sim
