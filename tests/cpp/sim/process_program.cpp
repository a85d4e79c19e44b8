// The user's program in a simulated process: rounds of batches of operations, each round ended by
// update_topology().
#include <algorithm>
#include <numeric>

#include "sim/process.hpp"
#include "sim/world.hpp"

namespace pccl::sim {

void Process::start_round() {
  if (boundary_ >= world_.scenario.shape.boundaries) {
    state_ = State::finished;
    session.set_stuck(false);
    if (world_.rng.chance(world_.scenario.shape.leave))
      world_.for_process(*this, Duration(world_.rng.below(100 * millisecond)), [this] {
        if (!alive || over()) return;
        session.leave(now());
        drain();
      });
    return;
  }
  round_ = round_of(world_.scenario.seed, world_.scenario.shape, boundary_, rounds_);
  group_ = session.view().group_members(session.identity().group);
  batch_ = 0;
  next_batch();
}

void Process::next_batch() {
  if (batch_ == round_.batches.size()) {
    state_ = State::at_boundary;
    world_.for_process(*this, world_.think(*this), [this] { cross(); });
    return;
  }
  state_ = State::posting;
  const auto& batch = round_.batches[batch_];
  to_post_.resize(batch.size());
  std::iota(to_post_.begin(), to_post_.end(), std::size_t{0});
  if (batch.front().name != 0)  // several threads, each with its tag: in any order
    for (auto i = to_post_.size(); i > 1; --i) std::swap(to_post_[i - 1], to_post_[world_.rng.below(i)]);
  std::reverse(to_post_.begin(), to_post_.end());
  world_.for_process(*this, world_.think(*this), [this] { post_next(); });
}

void Process::post_next() {
  if (!alive || over()) return;
  if (to_post_.empty()) {
    state_ = State::waiting;
    return advance();
  }
  const auto& intent = round_.batches[batch_][to_post_.back()];
  to_post_.pop_back();
  if (takes_part(intent)) {
    const auto key = post(intent);
    if (!key) return world_.violated(name() + " cannot post: " + key.error().text);
  }
  world_.for_process(*this, world_.think(*this), [this] { post_next(); });
}

// Of a transfer, the two; both are of this peer's group, and one of them may be gone.
std::pair<PeerId, PeerId> Process::ends_of(const Intent& intent) const {
  const auto peer = [&](std::uint32_t island) {
    const auto& scenario = world_.scenario;
    const bool keeps = session.identity().role == Role::keeper;
    const auto trainers = scenario.islands * scenario.island_size;
    const auto number = keeps ? trainers + island % scenario.keepers
                              : island % scenario.islands * scenario.island_size + session.identity().group;
    for (const auto& m : session.view().members)  // it may not have heard yet who it is
      if (m.reachable_at.at(0).port == number + 1) return m.peer;
    return world_.process(number).session.peer();
  };
  return {peer(intent.from), peer(intent.to)};
}

bool Process::takes_part(const Intent& intent) const {
  if (intent.call != Call::transfer) return true;
  const auto [from, to] = ends_of(intent);
  return from != to && (from == session.peer() || to == session.peer());
}

Result<OpKey> Process::post(const Intent& intent) {
  const auto members = session.view().group_members(session.identity().group);
  const auto root =
      group_.empty() ? members.at(intent.root % members.size()) : group_.at(intent.root % group_.size());
  Posting posting{intent.scope, intent.name, descriptor_of(intent, root, std::uint32_t(members.size())),
                  intent.timeout};
  if (intent.call == Call::transfer) std::tie(posting.from, posting.to) = ends_of(intent);
  const auto blocks = in_blocks(intent.call) ? std::uint32_t(members.size()) : 1u;
  const bool in_place = intent.in_place && !goes_straight(intent.call);
  const auto key = session.post(std::move(posting), now());
  if (!key) return key;
  running_[key.value()] = {intent, root};
  if (intent.call == Call::sync_state) states.posted(key.value());
  if (!intent.tensors.empty()) data.own(key.value(), Memory(intent.tensors, in_place, index, blocks));
  world_.oracle.posted(*this, key.value());
  if (intent.canceller == index)
    world_.for_process(*this, intent.cancel_after, [this, posted = key.value()] { cancel(posted); });
  drain();
  return key;
}

void Process::cancel(const OpKey& key) {
  if (!alive || over()) return;
  session.abandon(key, ErrorCode::cancelled, name() + " cancelled " + pccl::describe(key), now());
  drain();
}

void Process::advance() {
  if (!alive || over() || state_ != State::waiting) return;
  const bool last = batch_ + 1 == round_.batches.size();
  if (!running_.empty() && !(last && round_.sloppy)) return session.set_stuck(true);
  session.set_stuck(false);
  ++batch_;
  next_batch();
}

void Process::cross() {
  if (!alive || over() || state_ != State::at_boundary || session.at_boundary()) return;
  enter_boundary(round_.islands, round_.probe_ms);
}

void Process::enter_boundary(std::uint32_t islands, std::uint32_t probe_ms) {
  impatient_ = !scripted && world_.rng.chance(world_.scenario.shape.impatient);
  const auto patience =
      1 + Duration(world_.rng.below(std::uint64_t(20 * millisecond) >> world_.rng.below(10)));
  const bool by_timeout = impatient_ && world_.rng.chance(0.5);
  const auto entered = session.enter_boundary(islands, by_timeout ? patience : never, now(), probe_ms);
  if (!entered && !over()) {
    if (world_.scenario.rules.no_boundary_in_flight && session.operations().empty())
      return world_.violated(name() + " cannot enter the boundary: " + entered.error().text);
    // The program broke the rule, was told, and waits as it should have.
    round_.sloppy = false;
    --batch_;
    state_ = State::waiting;
    return advance();
  }
  if (impatient_ && !by_timeout) world_.for_process(*this, patience, [this] { walk_away(); });
  drain();
}

// And sometimes it thinks better of it before the master has heard.
void Process::walk_away() {
  if (!alive || over() || state_ != State::at_boundary || !impatient_) return;
  session.leave_boundary(now());
  drain();
  if (session.at_boundary() && world_.rng.chance(0.3) &&
      !session.enter_boundary(round_.islands, never, now(), round_.probe_ms))
    world_.violated(name() + " cannot come back to the boundary");
  drain();
}

std::string Process::describe() const {
  constexpr const char* names[] = {"outside", "posting", "waiting", "at the boundary", "finished"};
  std::string all = name() + " (peer " + std::to_string(session.peer()) + ")";
  if (!alive) return all + ": dead";
  if (over()) return all + ": gone, " + session.end().text;
  all += ": " + std::string(names[std::size_t(state_)]) + ", boundary " + std::to_string(boundary_) +
         " round " + std::to_string(rounds_) + ", view " + world_.text(session.view()) +
         (session.at_boundary() ? ", in update_topology" : "");
  for (const auto& [key, operation] : session.operations()) {
    constexpr const char* stages[] = {"posted", "running", "held", "abandoned"};
    all += "\n    " + std::string(stages[std::size_t(operation.state)]) + " " + pccl::describe(key) +
           " in view " + text(operation.view) + ", attempt " + std::to_string(operation.attempts);
  }
  all += "\n    links:";
  for (const auto& [peer, link] : links)
    all += std::string(" ") + world_.name_of(peer) + (world_.links.at(link).broken ? "(broken)" : "");
  for (const auto& [peer, serial] : dialling) all += std::string(" ") + world_.name_of(peer) + "(dialling)";
  return all + (control == UINT32_MAX ? ", no master" : "");
}

}  // namespace pccl::sim
