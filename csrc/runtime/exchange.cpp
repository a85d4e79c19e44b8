#include "runtime/exchange.hpp"

#include <algorithm>

#include "wire/codec.hpp"

namespace pccl {

namespace {

constexpr std::size_t tensors_named = 4;      // in a description
constexpr std::uint32_t stripes_assumed = 2;  // for the chunk size, where the view does not say

Plan plan_of(const Descriptor& d, std::uint32_t position, std::uint32_t world) {
  const auto wire = d.quantization == Quantization::none ? Wire::element : Wire::quantized;
  if (d.algorithm == Algorithm::exchange) return plan_exchange_all_reduce(position, world);
  if (d.algorithm == Algorithm::direct) return plan_direct_all_reduce(position, world, d.weighted, wire);
  return plan_ring_all_reduce(position, world, d.weighted);
}

std::uint64_t total_bytes(const Descriptor& d) {
  std::uint64_t bytes = 0;
  for (const auto& tensor : d.tensors) bytes += tensor.count * size_of(tensor.dtype);
  return bytes * std::max(d.blocks, 1u);
}

// Parts of sums that one peer holds at most, of one operation.
std::uint32_t window_of(std::uint32_t world, std::uint32_t chunk_bytes) {
  const auto chunks = limits::fold_bytes_max / (std::uint64_t{world} * std::max(chunk_bytes, 1u));
  return std::uint32_t(std::max<std::uint64_t>(chunks, 2));
}

bool moves_data(const Descriptor& d) {
  return d.call == Call::all_reduce || d.call == Call::broadcast || in_blocks(d.call);
}

Plan plan_of_blocks(const Descriptor& d, std::uint32_t position, std::uint32_t world, std::uint32_t root) {
  switch (d.call) {
    case Call::all_gather:
      return plan_all_gather(position, world);
    case Call::gather:
      return plan_gather(position, world, root);
    case Call::scatter:
      return plan_scatter(position, world, root);
    case Call::all_to_all:
      return plan_all_to_all(position, world);
    default:
      return d.algorithm == Algorithm::direct ? plan_direct_reduce_scatter(position, world)
                                              : plan_ring_reduce_scatter(position, world);
  }
}

}  // namespace

std::string describe(const TensorShape& tensor) {
  return std::to_string(tensor.count) + " x " + std::string(name(tensor.dtype));
}

std::string describe(const Descriptor& d) {
  std::string text = std::string(name(d.call)) + "(";
  if (d.call == Call::all_reduce || d.call == Call::reduce_scatter) text += std::string(name(d.op)) + ", ";
  if (has_root(d.call)) text += "root peer " + std::to_string(d.root) + ", ";
  for (std::size_t i = 0; i < d.tensors.size() && i < tensors_named; ++i)
    text += (i > 0 ? ", " : "") + describe(d.tensors[i]);
  if (d.tensors.size() > tensors_named) text += ", ... " + std::to_string(d.tensors.size()) + " tensors";
  if (d.blocks != 0) text += " for each of " + std::to_string(d.blocks) + " peers";
  if (d.weighted) text += ", weighted";
  if (d.quantization != Quantization::none)
    text += ", " + std::string(name(d.quantization)) + " in blocks of " +
            std::to_string(d.quantization_block) + (d.stochastic ? ", stochastic" : "");
  if (d.on_loss == OnLoss::raise) text += ", on_loss=raise";
  return text + ")";
}

// What two descriptions of the same length do not show: a plan, or a tensor far down the list.
std::string hidden_difference(const Descriptor& mine, const Descriptor& theirs) {
  if (mine.call != theirs.call) return {};
  for (std::size_t i = tensors_named; i < std::min(mine.tensors.size(), theirs.tensors.size()); ++i)
    if (mine.tensors[i] != theirs.tensors[i])
      return "; tensor " + std::to_string(i) + " is " + describe(mine.tensors[i]) + " and " +
             describe(theirs.tensors[i]);
  const auto plan = [](const Descriptor& d) {
    return std::string(name(d.algorithm)) + " in chunks of " + std::to_string(d.chunk_bytes);
  };
  const bool same = mine.algorithm == theirs.algorithm && mine.chunk_bytes == theirs.chunk_bytes;
  return same ? std::string() : "; the plans are " + plan(mine) + " and " + plan(theirs);
}

std::uint32_t Exchange::Attempt::position_of(PeerId peer) const {
  return std::uint32_t(std::find(ring.begin(), ring.end(), peer) - ring.begin());
}

const Exchange::Attempt* Exchange::find(const OpKey& key) const {
  const auto it = attempts_.find(key);
  return it == attempts_.end() ? nullptr : &it->second;
}

// Where the mesh is not complete, or the plan does not exist for a call, the ring does it.
Algorithm Exchange::choose_algorithm(const Descriptor& d, std::uint32_t world) const {
  if (in_blocks(d.call))  // parts that wait must stay few where all are added at their owner
    return d.call != Call::reduce_scatter || total_bytes(d) <= limits::fold_bytes_max ? Algorithm::direct
                                                                                      : Algorithm::ring;
  const bool quantized = d.quantization != Quantization::none;
  const bool meshed = session_.view().hints.mesh && d.call == Call::all_reduce && world > 1;
  if (meshed && quantized) return Algorithm::direct;  // every contribution is encoded once
  if (!meshed || d.algorithm == Algorithm::ring || d.algorithm == Algorithm::two_level)
    return Algorithm::ring;
  const auto bytes = total_bytes(d);
  const bool small =
      bytes <= limits::exchange_bytes_max && world <= limits::exchange_world_max && !d.weighted;
  if (d.algorithm == Algorithm::exchange) return small ? Algorithm::exchange : Algorithm::direct;
  if (d.algorithm == Algorithm::direct) return Algorithm::direct;
  if (small) return Algorithm::exchange;
  return bytes <= limits::direct_bytes_max ? Algorithm::direct : Algorithm::ring;
}

// Everything that the choice depends on is in the view or in the descriptor: every peer chooses the same.
Descriptor Exchange::plan_descriptor(const Descriptor& descriptor, std::uint32_t world) const {
  auto planned = descriptor;
  const auto& hints = session_.view().hints;
  planned.algorithm = choose_algorithm(planned, world);
  if (planned.algorithm != Algorithm::direct) planned.quantization = Quantization::none;
  const auto stripes = hints.stripes != 0 ? hints.stripes : stripes_assumed;
  const bool cut = descriptor.call == Call::all_reduce && planned.algorithm != Algorithm::exchange;
  const auto parts = cut ? world : 1;
  if (!planned.tensors.empty())
    planned.chunk_bytes = choose_chunk_bytes(total_bytes(planned), parts, stripes, hints.chunk_bytes);
  return planned;
}

// A receiver that is behind parks what comes: few and small things.
bool Exchange::may_be_eager(const Descriptor& d) const {
  std::size_t unacknowledged = 0;
  for (const auto& [key, other] : attempts_) unacknowledged += other.complete_said ? 0 : 1;
  return total_bytes(d) <= limits_.eager_bytes && unacknowledged < limits_.eager_operations;
}

std::unique_ptr<Executor> Exchange::make_executor(const Attempt& attempt, bool in_place) const {
  const auto& d = attempt.descriptor;
  const auto world = std::uint32_t(attempt.ring.size());
  if (d.call == Call::sync_state) return nullptr;
  if (in_blocks(d.call)) return make_block_executor(attempt);
  Plan plan{attempt.position, world, {}};
  std::uint32_t segments = 1;
  if (d.call == Call::all_reduce) {
    plan = plan_of(d, attempt.position, world);
    segments = d.algorithm == Algorithm::exchange ? 1 : world;
  } else if (d.call == Call::broadcast) {
    plan = plan_ring_broadcast(attempt.position, world, attempt.position_of(d.root));
  }
  Executor::Options options;
  options.in_place = in_place && world > 1;
  options.eager = may_be_eager(d);
  options.slots_max = limits_.slots;
  options.weighted = d.weighted;
  options.code = {d.quantization, d.quantization_block, d.stochastic};
  options.window = window_of(world, d.chunk_bytes);
  return std::make_unique<Executor>(std::move(plan), Layout(d.tensors, segments, d.chunk_bytes, d.weighted),
                                    options);
}

std::unique_ptr<Executor> Exchange::make_block_executor(const Attempt& attempt) const {
  const auto& d = attempt.descriptor;
  const auto world = std::uint32_t(attempt.ring.size());
  Executor::Options options;
  options.eager = may_be_eager(d);
  options.slots_max = UINT32_MAX;  // there is room in the output for nothing but the result
  const auto blocks = d.call == Call::all_to_all ? world * world : world;
  return std::make_unique<Executor>(plan_of_blocks(d, attempt.position, world, attempt.position_of(d.root)),
                                    Layout::of_blocks(d.tensors, blocks, d.chunk_bytes), options);
}

void Exchange::begin(const OpKey& key, bool in_place) {
  const auto* operation = session_.find(key);
  if (operation == nullptr) return;
  Attempt attempt;
  attempt.id = next_attempt_++;
  attempt.key = key;
  attempt.view = session_.view().id;
  attempt.ring = in_blocks(operation->descriptor.call)
                     ? session_.view().group_members(session_.identity().group)  // blocks are by rank
                     : session_.ring();
  attempt.position = attempt.position_of(session_.peer());
  attempt.order = operation->posted_order;
  attempt.descriptor = plan_descriptor(operation->descriptor, std::uint32_t(attempt.ring.size()));
  attempt.fingerprint = std::uint32_t(wire::fingerprint(attempt.descriptor));
  attempt.executor = make_executor(attempt, in_place);
  by_order_[attempt.order] = key;
  auto& started = attempts_[key] = std::move(attempt);
  if (started.executor == nullptr) return;
  started.executor->start(work_);
  do_all(started, work_);
  const auto& d = started.descriptor;
  if (started.ring.size() > 1 && moves_data(d))
    for (const auto source : sources_of(started))
      if (session_.link_up(source)) send_ready(started, source);
  for (const auto peer : started.ring)
    if (const auto parked = ready_parked_.find({peer, key});
        parked != ready_parked_.end() && parked->second.view == started.view) {
      const auto theirs = std::move(parked->second.descriptor);
      ready_parked_.erase(parked);
      use_ready(started, peer, theirs);
    }
  settle(started);
  replay_parked();
}

// Who sends to this peer, and waits for its READY: also the peer before it in a ring that the plan leaves
// out, as in a broadcast, so that everybody hears whether all do the same.
std::vector<PeerId> Exchange::sources_of(const Attempt& attempt) const {
  std::vector<PeerId> sources;
  for (const auto position : attempt.executor->sources()) sources.push_back(attempt.ring[position]);
  const auto before = attempt.ring[(attempt.position + attempt.ring.size() - 1) % attempt.ring.size()];
  if (std::find(sources.begin(), sources.end(), before) == sources.end()) sources.push_back(before);
  return sources;
}

void Exchange::send_ready(const Attempt& attempt, PeerId to) {
  emit(exchange_effect::SendReady{to, {attempt.view, attempt.key, attempt.descriptor}});
}

void Exchange::do_all(const Attempt& attempt, std::vector<Work>& work) {
  for (const auto& item : work) emit(exchange_effect::Do{attempt.id, attempt.key, item});
  work.clear();
}

// After anything moved: tell the links that have something to send, and the session when all is there.
void Exchange::settle(Attempt& attempt) {
  for (const auto position : attempt.executor->targets())
    if (attempt.executor->sendable(position)) emit(exchange_effect::Wake{attempt.ring[position]});
  if (attempt.complete_said || !attempt.executor->complete()) return;
  // Who only sends (two peers that both believe to be the root) would be done before it sees that others do
  // otherwise.
  for (const auto position : attempt.executor->targets())
    if (!attempt.heard.contains(position)) return;
  attempt.complete_said = true;
  emit(exchange_effect::Complete{attempt.id, attempt.key});
}

void Exchange::drop(const OpKey& key) {
  const auto it = attempts_.find(key);
  if (it == attempts_.end()) return;
  by_order_.erase(it->second.order);
  attempts_.erase(it);
}

// Frames and READYs of older views are of no use any more; those of this view may find their attempt now.
void Exchange::view_changed() {
  std::erase_if(ready_parked_, [&](const auto& entry) {
    return entry.second.view < session_.view().id || departed(entry.first.first);
  });
  replay_parked();
}

void Exchange::on_link_up(PeerId peer) {
  for (auto& [key, attempt] : attempts_) {
    if (attempt.executor == nullptr || attempt.ring.size() < 2 || !moves_data(attempt.descriptor)) continue;
    const auto sources = sources_of(attempt);
    if (std::find(sources.begin(), sources.end(), peer) != sources.end()) send_ready(attempt, peer);
  }
  emit(exchange_effect::Wake{peer});
}

bool Exchange::on_ready(PeerId from, const Ready& ready) {
  const auto& current = session_.view().id;
  if (ready.view < current && rules_.drop_older_views) return true;
  const auto it = attempts_.find(ready.key);
  if (ready.view <= current && it != attempts_.end()) {
    use_ready(it->second, from, ready.descriptor);
    return true;
  }
  if (ready.view == current && (session_.decided(ready.key) || session_.find(ready.key) != nullptr))
    return true;
  if (!rules_.park_newer) return true;
  if (!may_park_ready(from, ready)) return false;
  ready_parked_[{from, ready.key}] = ready;
  return true;
}

// Each peer has a share of its own: a READY that is dropped is a peer that waits for ever.
bool Exchange::may_park_ready(PeerId from, const Ready& ready) const {
  std::size_t operations = 1, tensors = ready.descriptor.tensors.size();
  for (auto it = ready_parked_.lower_bound({from, OpKey{}});
       it != ready_parked_.end() && it->first.first == from; ++it)
    ++operations, tensors += it->second.descriptor.tensors.size();
  return operations <= limits::operations_open_max && tensors <= limits::ready_tensors_max;
}

// It is in no view that is known here, and nothing of a view that comes can have arrived on a link that is
// gone.
bool Exchange::departed(PeerId peer) const {
  return session_.view().find(peer) == nullptr && !session_.link_up(peer);
}

void Exchange::use_ready(Attempt& attempt, PeerId from, const Descriptor& theirs) {
  const auto position = attempt.position_of(from);
  if (attempt.executor == nullptr || position >= attempt.ring.size()) return;
  if (theirs != attempt.descriptor) {
    emit(exchange_effect::Mismatch{attempt.id, attempt.key,
                                   "peer " + std::to_string(session_.peer()) + " calls " +
                                       describe(attempt.descriptor) + ", peer " + std::to_string(from) +
                                       " calls " + describe(theirs) + " as " + describe(attempt.key) +
                                       hidden_difference(attempt.descriptor, theirs)});
    return;
  }
  attempt.heard.insert(position);
  attempt.executor->on_ready(position);
  settle(attempt);
}

Landing Exchange::land(PeerId from, const wire::DataHeader& header) {
  constexpr Landing park{Landing::Kind::park, false};
  const auto& current = session_.view().id;
  if (header.view < current && rules_.drop_older_views) return {};
  if (header.view > current) return rules_.park_newer ? park : Landing{};
  const auto it = attempts_.find(header.key);
  if (it == attempts_.end()) {
    if (session_.decided(header.key) || session_.find(header.key) != nullptr) return {};
    return rules_.park_newer ? park : Landing{};
  }
  auto& attempt = it->second;
  const auto position = attempt.position_of(from);
  if (attempt.executor == nullptr || position >= attempt.ring.size() ||
      header.fingerprint != attempt.fingerprint)
    return {};
  return attempt.executor->land(position, header.step, header.chunk, header.bytes);
}

bool Exchange::may_park(PeerId from, std::size_t bytes) const {
  const auto it = parked_bytes_.find(from);
  return (it == parked_bytes_.end() ? 0 : it->second) + wire::data_header_bytes + bytes <=
         limits::parked_bytes_max;
}

ParkedId Exchange::park(PeerId from, const wire::DataHeader& header) {
  const auto id = next_parked_++;
  parked_[id] = {from, header};
  parked_bytes_[from] += wire::data_header_bytes + header.bytes;  // an empty chunk costs something, too
  return id;
}

void Exchange::replay_parked() {
  const auto& current = session_.view().id;
  for (auto it = parked_.begin(); it != parked_.end();) {
    const auto& [id, frame] = *it;
    const bool older = frame.header.view < current || departed(frame.from);
    const bool waits = frame.header.view > current ||
                       (!attempts_.contains(frame.header.key) && !session_.decided(frame.header.key) &&
                        session_.find(frame.header.key) == nullptr);
    if (!older && waits) {
      ++it;
      continue;
    }
    if (auto& held = parked_bytes_[frame.from]; (held -= wire::data_header_bytes + frame.header.bytes) == 0)
      parked_bytes_.erase(frame.from);
    if (older)
      emit(exchange_effect::Discard{id});
    else
      emit(exchange_effect::Replay{id});
    it = parked_.erase(it);
  }
}

void Exchange::arrived(const wire::DataHeader& header, SlotId slot) {
  const auto it = attempts_.find(header.key);
  if (it == attempts_.end() || it->second.executor == nullptr) return;
  it->second.executor->arrived(header.step, header.chunk, slot, work_);
  do_all(it->second, work_);
  settle(it->second);
}

bool Exchange::sendable(PeerId peer) const {
  return std::any_of(attempts_.begin(), attempts_.end(), [&](const auto& entry) {
    const auto position = entry.second.position_of(peer);
    return entry.second.executor != nullptr && position < entry.second.ring.size() &&
           entry.second.executor->sendable(position);
  });
}

// The oldest operation first: all peers post in about the same order, so links work on the same one.
std::optional<Outgoing> Exchange::next(PeerId peer) {
  for (const auto& [order, key] : by_order_) {
    auto& attempt = attempts_.at(key);
    const auto position = attempt.position_of(peer);
    if (attempt.executor == nullptr || position >= attempt.ring.size()) continue;
    const auto send = attempt.executor->next(position);
    if (!send) continue;
    wire::DataHeader header{attempt.view, key, attempt.fingerprint, send->step, 0, send->chunk,
                            send->bytes,  0};
    return Outgoing{attempt.id, key, header, *send};
  }
  return std::nullopt;
}

bool Exchange::sent(const Outgoing& outgoing) {
  const auto it = attempts_.find(outgoing.key);
  if (it == attempts_.end() || it->second.id != outgoing.attempt) return false;
  const bool free = it->second.executor->sent(outgoing.send, work_);
  if (work_.empty()) return free;
  do_all(it->second, work_);
  settle(it->second);
  return free;
}

bool Exchange::take_effects(std::vector<ExchangeEffect>& into) {
  into.clear();
  std::swap(into, effects_);
  return !into.empty();
}

}  // namespace pccl
