// The door: who asks to come in, whether the island is whole, and the proof that it can reach its neighbours.
#include <algorithm>

#include "protocol/master.hpp"

namespace pccl {

namespace {
// What a peer that names no island is called.
std::string plain_name(PeerId peer) { return "peer-" + std::to_string(peer); }

bool is_plain_name(const std::string& island) {
  return island.size() > 5 && island.starts_with("peer-") &&
         island.find_first_not_of("0123456789", 5) == std::string::npos;
}
}  // namespace

// All peers say the same about `deterministic`.
Error Master::mixed(const Join& join) const {
  if (peers_.empty() || peers_.begin()->second.join.deterministic == join.deterministic) return {};
  return {ErrorCode::mismatch, std::string("this peer joins ") + (join.deterministic ? "with" : "without") +
                                   " deterministic=True, and the run's peers are " +
                                   (join.deterministic ? "without" : "with") + " it; all must say the same"};
}

Error Master::admissible(const Join& join) const {
  const auto no = [&](const std::string& why) {
    return Error{ErrorCode::refused, "the master refused to let this peer in: " + why};
  };
  if (join.role != role_)
    return no(std::string("a ") + name(join.role) + " among the " + name(role_) + "s of the run");
  if (join.island_size < 1 || join.island_rank >= join.island_size)
    return no("rank " + std::to_string(join.island_rank) + " of an island of " +
              std::to_string(join.island_size));
  if (is_plain_name(join.island))
    return no("island names like '" + join.island + "' stand for peers without one; choose another");
  if (auto error = mixed(join)) return error;
  if (join.reachable_at.empty()) return no("it offers no address that other peers can reach");
  const auto it = door_.find(join.island);
  if (it != door_.end() && it->second.size != join.island_size && !in_the_way(join))
    return no("island '" + join.island + "' has " + std::to_string(it->second.size) +
              " ranks by its first one and " + std::to_string(join.island_size) + " by this one");
  return {};
}

// Who has this place already, in the run or at the door: mostly its own predecessor, which was killed and is
// not gone yet.
std::optional<PeerId> Master::in_the_way(const Join& join) const {
  if (index_.has_island(join.island))
    for (const auto& m : view_.members)
      if (m.island == join.island) return m.peer;
  const auto it = door_.find(join.island);
  if (it == door_.end()) return std::nullopt;
  const auto rank = it->second.ranks.find(join.island_rank);
  return rank == it->second.ranks.end() ? std::nullopt : std::optional(rank->second);
}

// Its time-out is its own: it hangs up when it has waited long enough.
void Master::hold(ConnectionId c, const Join& join, Instant now) {
  early_joins_[c] = join;
  door_news_at_ = std::min(door_news_at_, now + timing_.settle);
}

// Somebody has gone, and with it a name.
void Master::let_held_in(Instant now) {
  if (phase_ != Phase::serving || !std::exchange(names_freed_, false)) return;
  for (const auto& [c, join] : std::exchange(early_joins_, {})) on(c, no_peer, join, now);
}

void Master::on(ConnectionId c, PeerId, const Join& m, Instant now) {
  if (phase_ != Phase::serving) {  // ids can be given once the incarnation is known
    hold(c, m, now);
    return phase_ == Phase::suspended ? suspend() : void();
  }
  const PeerId peer = (PeerId{incarnation_} << 32) + next_peer_;
  const auto island = m.island.empty() ? plain_name(peer) : m.island;
  if (auto error = admissible(m)) return refuse(c, error.code, error.text);
  if (in_the_way(m)) return hold(c, m, now);
  ++next_peer_;
  connections_[c] = peer;
  auto& state = peers_[peer];
  state.join = m;
  state.join.island = island;
  state.connection = c;
  state.heard = now;
  send(peer, Welcome{peer, run_, incarnation_, std::uint32_t(timing_.heartbeat / millisecond), island});
  seat(peer, now);
}

// It is at the door now.
void Master::seat(PeerId peer, Instant now) {
  const auto& state = peers_.at(peer);
  const auto& join = state.join;
  liveness_at_ = std::min(liveness_at_, silent_at(state));
  auto [it, created] = door_.try_emplace(join.island);
  if (created) it->second.order = next_door_++;
  it->second.size = join.island_size;
  it->second.ranks[join.island_rank] = peer;
  it->second.min_islands = std::max(it->second.min_islands, join.min_islands);
  it->second.start_rank = std::min(it->second.start_rank, join.start_rank);
  door_news_at_ = std::min(door_news_at_, now + timing_.settle);
  if (complete(it->second)) start_proof(join.island, now);
  form_first_view(now);
}

// A peer that waited at the door of this master's predecessor: it has its number, which no other peer will
// get, and was never a member. False: it is to hear that the run goes on without it.
bool Master::seat_again(ConnectionId c, const Register& m, Instant now) {
  const auto& join = m.join;
  if ((m.peer >> 32) >= incarnation_ || peers_.contains(m.peer)) return false;
  if (is_plain_name(join.island) && join.island != plain_name(m.peer)) return false;
  const auto at_door = door_.find(join.island);
  const bool fits = !join.island.empty() && join.island_size >= 1 && join.island_rank < join.island_size &&
                    !join.reachable_at.empty() &&
                    (at_door == door_.end() || at_door->second.size == join.island_size);
  if (m.view.id != ViewId{} || !fits || in_the_way(join) || !departures_.why(m.peer).empty()) return false;
  if (auto error = mixed(join)) {
    refuse(c, error.code, error.text);
    return true;
  }
  connections_[c] = m.peer;
  auto& state = peers_[m.peer];
  state.join = join;
  state.connection = c;
  state.heard = now;
  seat(m.peer, now);
  return true;
}

bool Master::complete(const DoorIsland& island) const { return island.ranks.size() == island.size; }

// The members hear of it with the next pulse: one for all who came in the meantime.
void Master::update_ready(DoorIsland& island, Instant now) {
  const bool was = island.ready;
  island.ready =
      complete(island) && std::all_of(island.ranks.begin(), island.ranks.end(),
                                      [&](const auto& rank) { return peers_.at(rank.second).proven; });
  ready_ = ready_ + island.ready - was;
  if (island.ready && !was) pulse_at_ = std::min(pulse_at_, now + timing_.settle);
}

void Master::leave_door(std::map<std::string, DoorIsland>::iterator island) {
  ready_ -= island->second.ready;
  door_.erase(island);
}

namespace {
Member member_of(PeerId peer, const Join& join) {
  return {peer, join.island, join.island_rank, join.group, join.role, join.reachable_at, 0, join.in_place};
}
}  // namespace

// Members and those at the door who would be ring neighbours: the first and the last of the group, and of
// those who wait the two beside this peer. In a small group all: plans on a full mesh need them, the run does
// not. In a large one that would be a mesh that nobody uses: with P peers at the door P^2 links.
void Master::start_proof(const std::string& island, Instant now) {
  auto& proving = door_.at(island);
  for (const auto& [rank, peer] : proving.ranks) {
    auto& state = peers_.at(peer);
    Prove prove{state.proof_round.value_or(0) + 1, {}};
    const auto& group = ring_of(state.join.group);
    for (std::size_t i = 0; i < group.size(); ++i)
      if (group.size() < limits::mesh_max || i == 0 || i + 1 == group.size())
        prove.targets.push_back(*index_.find(group[i]));
    std::vector<std::tuple<std::uint32_t, std::uint64_t, std::uint16_t, PeerId>> waiting;  // as they come in
    for (const auto& [other_name, other] : door_)
      for (const auto& [other_rank, other_peer] : other.ranks)
        if (complete(other) && peers_.at(other_peer).join.group == state.join.group)
          waiting.emplace_back(other.start_rank, other.order, other_rank, other_peer);
    std::sort(waiting.begin(), waiting.end());
    const auto own = std::size_t(std::ranges::find(waiting, peer, [](auto& w) { return std::get<3>(w); }) -
                                 waiting.begin());
    const auto count = waiting.size();
    for (std::size_t i = 0; i < count; ++i) {
      const auto other = std::get<3>(waiting[i]);
      const bool beside = i == (own + 1) % count || own == (i + 1) % count;
      if (i != own && (group.size() + count <= limits::mesh_max ? other < peer : beside))
        prove.targets.push_back(member_of(other, peers_.at(other).join));
    }
    state.proven = prove.targets.empty();
    state.proof_round = prove.round;
    if (!state.proven) send(peer, std::move(prove));
  }
  update_ready(proving, now);
}

void Master::on(ConnectionId, PeerId peer, const Reachable& m, Instant now) {
  auto& state = peers_.at(peer);
  if (member(peer) || state.proof_round != m.round || !door_.contains(state.join.island)) return;
  const auto island = state.join.island;
  const bool all_gone =
      std::all_of(m.failed.begin(), m.failed.end(), [&](PeerId target) { return !peers_.contains(target); });
  if (!m.failed.empty() && all_gone)
    return start_proof(island, now);  // it tried to reach peers that are no more
  for (const auto& link : m.links)
    if (peers_.contains(link.to)) wiring_.learn(peer, link, now);
  const auto& group = ring_of(state.join.group);
  for (const auto target : m.failed) {
    // Between two that would not be neighbours in the ring: the mesh ends, nothing else.
    const bool inner = member(target) && index_.find(target)->group == state.join.group &&
                       target != group.front() && target != group.back();
    if (!inner)
      return drop_from_door(
          peer, "peer " + std::to_string(peer) + " cannot open the links that it needs: " + m.why);
    unreachable_.insert(std::minmax(peer, target));
  }
  state.proven = true;
  update_ready(door_.at(island), now);
  if (!door_.at(island).ready) return;
  form_first_view(now);
  if (phase_ == Phase::serving) try_pass_boundary(now);
}

// The whole island is turned away with the reason; the others go on. `evicted`: it may come again at once.
void Master::drop_from_door(PeerId peer, const std::string& why, ErrorCode code) {
  const auto it = peers_.find(peer);
  if (it == peers_.end()) return;
  const auto island = it->second.join.island;
  const auto door = door_.find(island);
  if (door == door_.end()) return forget_peer(peer);
  const auto ranks = door->second.ranks;
  leave_door(door);
  names_freed_ = true;
  for (const auto& [rank, other] : ranks) {
    departures_.note(other, why);
    if (const auto c = peers_.at(other).connection; c != no_connection) refuse(c, code, why);
    forget_peer(other);
  }
}

std::vector<Member> Master::door_members() {
  std::vector<std::tuple<std::uint32_t, std::uint64_t, std::string>> order;
  for (const auto& [island, door] : door_)
    if (door.ready) order.emplace_back(door.start_rank, door.order, island);
  std::sort(order.begin(), order.end());
  std::vector<Member> members;
  for (const auto& [start_rank, number, island] : order) {
    for (const auto& [rank, peer] : door_.at(island).ranks)
      members.push_back(member_of(peer, peers_.at(peer).join));
    leave_door(door_.find(island));
  }
  return members;
}

// The run begins, or begins again when everybody has left, with as many islands as the most demanding one
// asks for.
void Master::form_first_view(Instant now) {
  if (!view_.members.empty() || waiting() == 0) return;
  const auto most = std::max_element(door_.begin(), door_.end(), [](const auto& a, const auto& b) {
    return a.second.min_islands < b.second.min_islands;
  });
  if (waiting() < most->second.min_islands) return;
  if (view_.id.number > 0) ++view_.boundaries;  // nobody of those who left can mean the same operations
  new_view(door_members(), "the run begins", now);
}

}  // namespace pccl
