#include "collective/executor.hpp"

#include <algorithm>

namespace pccl {

Executor::Executor(Plan plan, Layout layout, Options options)
    : plan_(std::move(plan)),
      layout_(std::move(layout)),
      options_(options),
      arrived_(plan_.steps.size()),
      kept_(options.in_place ? layout_.chunks() : 0),
      unsent_(kept_.size()),
      ready_(plan_.world, options.eager),
      head_start_(plan_.world) {
  for (std::uint16_t s = 0; s < plan_.steps.size(); ++s) {
    const auto& step = plan_.steps[s];
    const auto chunks = layout_.chunks_in(step.segment);
    state_.emplace_back(step.from < 0 ? 0 : chunks, Chunkstate::expected);
    const bool own = step.merge == Merge::own;
    // A signal that is not heard any more keeps nobody waiting.
    if (own ? step.write : step.merge != Merge::signal) missing_ += chunks;
    for (std::size_t hop = 0; hop < step.to.size(); ++hop) {
      auto& target = targets_[step.to[hop].position];
      if (own) target.sources.push_back({s, hop});
    }
    if (options_.weighted && step.segment >= plan_.segments && step.from >= 0) weights_missing_ += chunks;
  }
}

bool Executor::start(std::vector<Work>& work) {
  started_ = true;
  for (auto s = std::uint16_t(plan_.steps.size()); s-- > 0;) {
    const auto& step = plan_.steps[s];
    if (step.merge != Merge::own) continue;
    const auto begin = layout_.segment_begin(step.segment), end = layout_.segment_end(step.segment);
    if (options_.in_place)
      for (auto c = begin; c < end; ++c) unsent_[c] += std::uint32_t(step.to.size());
    if (step.write && begin < end) uncopied_.push_back({s, begin, end});
  }
  // The own weight first: sums are divided as soon as the others' are there.
  std::stable_partition(uncopied_.begin(), uncopied_.end(),
                        [&](const Own& own) { return !layout_.hidden(own.chunk); });
  return copy_own(work);
}

// Where a tensor's output is its input there is nothing to copy; the memory knows, tensor by tensor.
bool Executor::copy_own(std::vector<Work>& work) {
  for (std::uint64_t bytes = 0;
       !uncopied_.empty() && bytes < std::max<std::uint64_t>(options_.own_bytes, 1);) {
    auto& own = uncopied_.back();
    work.push_back({.step = own.step, .chunk = own.chunk, .merge = Merge::own, .to_output = true});
    bytes += layout_.chunk(own.chunk).element_bytes();
    --missing_;
    if (++own.chunk == own.end) uncopied_.pop_back();
  }
  return !uncopied_.empty();
}

Executor::Chunkstate& Executor::state(std::uint16_t step, std::uint32_t chunk) {
  return state_[step][chunk - layout_.segment_begin(plan_.steps[step].segment)];
}

std::uint32_t Executor::chunk_bytes(std::uint32_t chunk, Wire wire) const {
  const auto& c = layout_.chunk(chunk);
  if (wire == Wire::quantized) {
    const auto codec = kernels::Codec::of(options_.code, c.dtype);
    return codec ? std::uint32_t(codec->encoded_bytes(c.count)) : 0;
  }
  return std::uint32_t(c.count * size_of(wire == Wire::accumulator ? accumulator_of(c.dtype) : c.dtype));
}

// The bytes come from a peer: nothing here may trust the numbers.
Landing Executor::land(std::uint32_t from, std::uint16_t step, std::uint32_t chunk, std::uint32_t bytes) {
  if (step >= plan_.steps.size()) return {};
  const auto& s = plan_.steps[step];
  if (s.from != std::int32_t(from) || chunk < layout_.segment_begin(s.segment) ||
      chunk >= layout_.segment_end(s.segment))
    return {};
  const auto wanted = s.merge == Merge::signal ? 0 : chunk_bytes(chunk, s.in);
  if (bytes != wanted || state(step, chunk) != Chunkstate::expected) return {};
  state(step, chunk) = Chunkstate::arriving;
  if (s.merge == Merge::signal) return {Landing::Kind::signal, false};
  if (s.merge == Merge::replace && s.in == Wire::element) return {Landing::Kind::output, take_keep(chunk)};
  return {Landing::Kind::slot, false};
}

std::size_t Executor::parts_missing(std::uint16_t step, std::uint32_t chunk) const {
  const auto& s = plan_.steps[step];
  if (s.merge != Merge::collect) return 0;
  const auto it = parts_.find({std::uint16_t(s.fold), chunk});
  return it != parts_.end() ? it->second.missing : plan_.steps[std::size_t(s.fold)].parts.size() - 1;
}

void Executor::unland(std::uint16_t step, std::uint32_t chunk) {
  if (auto& now = state(step, chunk); now == Chunkstate::arriving) now = Chunkstate::expected;
}

bool Executor::in_output(const ChunkSend& send) const {
  const auto& step = plan_.steps[send.own_step];
  return step.write && step.out == Wire::element;
}

bool Executor::take_keep(std::uint32_t chunk) {
  if (!options_.in_place || layout_.hidden(chunk) || kept_[chunk]) return false;
  kept_[chunk] = true;
  return true;
}

void Executor::arrived(std::uint16_t step, std::uint32_t chunk, SlotId slot, std::vector<Work>& work) {
  auto& now = state(step, chunk);
  if (now == Chunkstate::arrived) return;
  now = Chunkstate::arrived;
  ++arrived_[step];
  const auto& s = plan_.steps[step];
  if (s.merge == Merge::signal) return;  // its count opens a gate
  if (s.merge == Merge::collect) return collect(step, chunk, slot, work);
  if (s.merge == Merge::replace) {
    --missing_;
    if (s.in == Wire::quantized) decode(step, chunk, slot, work);
    if (s.in == Wire::element) forward(step, chunk, Place::output, no_slot);
    if (!options_.weighted || s.segment < plan_.segments || --weights_missing_ != 0) return;
    for (const auto& held : std::exchange(held_, {})) merge(held.step, held.chunk, held.slot, work);
    std::vector<std::pair<std::uint16_t, std::uint32_t>> due;  // a fold that is done may complete another
    for (const auto& [fold, parts] : parts_) due.push_back(fold);
    for (const auto& [fold, chunk_due] : due) fold_if_due(fold, chunk_due, work);
  } else if (s.finish && weights_missing_ != 0) {
    held_.push_back({step, chunk, slot});
    slot_users_[slot] = 1;
  } else {
    merge(step, chunk, slot, work);
  }
}

void Executor::merge(std::uint16_t step, std::uint32_t chunk, SlotId slot, std::vector<Work>& work) {
  const auto& s = plan_.steps[step];
  --missing_;
  slot_users_.erase(slot);
  const auto& c = layout_.chunk(chunk);
  const bool fits_output = s.out == Wire::element || accumulator_of(c.dtype) == c.dtype;
  const bool crowded = slot_users_.size() >= options_.slots_max;
  const bool spill = crowded && fits_output && (s.write || !options_.in_place);
  // In place the caller's bytes are in the cache anyway, and the sum takes their place: it is sent from
  // there.
  const bool from_slot =
      !s.to.empty() && !s.signals && !spill && !(s.write && options_.in_place && !options_.weighted);
  const bool to_output = s.write || spill;
  work.push_back({.step = step,
                  .chunk = chunk,
                  .slot = slot,
                  .merge = Merge::reduce,
                  .to_output = to_output,
                  .keep = to_output && take_keep(chunk),
                  .to_slot = from_slot,
                  .free_slot = !from_slot});
  if (from_slot) slot_users_[slot] = std::uint32_t(s.to.size());
  forward(step, chunk, from_slot ? Place::slot : Place::output, from_slot ? slot : no_slot);
}

void Executor::decode(std::uint16_t step, std::uint32_t chunk, SlotId slot, std::vector<Work>& work) {
  const auto& s = plan_.steps[step];
  work.push_back({.step = step,
                  .chunk = chunk,
                  .slot = slot,
                  .merge = Merge::replace,
                  .to_output = true,
                  .keep = take_keep(chunk),
                  .to_slot = !s.to.empty(),
                  .free_slot = s.to.empty()});
  if (s.to.empty()) return;
  slot_users_[slot] = std::uint32_t(s.to.size());
  forward(step, chunk, Place::slot, slot);
}

void Executor::collect(std::uint16_t step, std::uint32_t chunk, SlotId slot, std::vector<Work>& work) {
  --missing_;
  part(step, chunk, slot, work);
}

// What came, or was added up here, waits for the other parts of the fold that it is for.
void Executor::part(std::uint16_t step, std::uint32_t chunk, SlotId slot, std::vector<Work>& work) {
  const auto fold = std::uint16_t(plan_.steps[step].fold);
  const auto& order = plan_.steps[fold].parts;
  auto& parts = parts_[{fold, chunk}];
  if (parts.slots.empty()) {
    parts.slots.assign(order.size(), no_slot);
    parts.missing = order.size() - std::size_t(std::count(order.begin(), order.end(), own_part));
  }
  parts.slots[std::size_t(std::find(order.begin(), order.end(), step) - order.begin())] = slot;
  --parts.missing;
  slot_users_[slot] = 1;
  fold_if_due(fold, chunk, work);
}

// When all parts are there, the weights too, and the caller's bytes are not needed any more where the sum
// takes their place.
void Executor::fold_if_due(std::uint16_t step, std::uint32_t chunk, std::vector<Work>& work) {
  const auto it = parts_.find({step, chunk});
  if (it == parts_.end() || it->second.missing != 0 || weights_missing_ != 0) return;
  if (options_.in_place && unsent_[chunk] != 0) return;
  auto parts = std::move(it->second.slots);
  parts_.erase(it);
  fold(step, chunk, std::move(parts), work);
}

void Executor::fold(std::uint16_t step, std::uint32_t chunk, std::vector<SlotId> parts,
                    std::vector<Work>& work) {
  const auto& s = plan_.steps[step];
  --missing_;
  for (const auto slot : parts) slot_users_.erase(slot);
  const auto slot = *std::find_if(parts.begin(), parts.end(), [](SlotId id) { return id != no_slot; });
  const bool spill = s.write && s.out == Wire::element && slot_users_.size() >= options_.slots_max;
  const bool from_slot = (!s.to.empty() || s.fold >= 0) && !spill;
  work.push_back({.step = step,
                  .chunk = chunk,
                  .slot = slot,
                  .merge = Merge::fold,
                  .to_output = s.write,
                  .keep = s.write && take_keep(chunk),
                  .to_slot = from_slot,
                  .free_slot = !from_slot,
                  .parts = std::move(parts)});
  if (s.fold >= 0) return part(step, chunk, slot, work);
  if (from_slot) slot_users_[slot] = std::uint32_t(s.to.size());
  forward(step, chunk, from_slot ? Place::slot : Place::output, from_slot ? slot : no_slot);
}

void Executor::forward(std::uint16_t step, std::uint32_t chunk, Place place, SlotId slot) {
  const auto& s = plan_.steps[step];
  for (std::size_t hop = 0; hop < s.to.size(); ++hop)
    targets_.at(s.to[hop].position).moving.push({step, chunk, place, slot, hop});
}

bool Executor::gate_open(const Source& source) const {
  const auto& step = plan_.steps[source.step];
  if (source.next >= layout_.chunks_in(step.segment)) return false;
  return step.gate < 0 || source.next < std::uint64_t{arrived_[std::size_t(step.gate)]} + options_.window;
}

// Of several segments that go the same way, the one that is behind; of equals the later step, which is a
// weight where there are weights.
Executor::Source* Executor::next_source(Target& target) {
  Source* best = nullptr;
  for (auto& source : target.sources)
    if (gate_open(source) && (best == nullptr || source.next <= best->next)) best = &source;
  return best;
}

bool Executor::sendable(std::uint32_t position) const {
  const auto it = targets_.find(position);
  if (it == targets_.end() || !started_ || (!ready_.at(position) && head_start_[position] == 0)) return false;
  const auto& target = it->second;
  return !target.moving.empty() || std::any_of(target.sources.begin(), target.sources.end(),
                                               [&](const Source& source) { return gate_open(source); });
}

std::optional<ChunkSend> Executor::next(std::uint32_t position) {
  if (!sendable(position)) return std::nullopt;
  const auto send = send_of(position, take(targets_.at(position)));
  auto& left = head_start_[position];
  left -= std::min<std::uint64_t>(left, send.bytes);
  return send;
}

Executor::Pending Executor::take(Target& target) {
  if (!target.moving.empty()) {
    const auto first = target.moving.top();
    target.moving.pop();
    return first;
  }
  auto& source = *next_source(target);
  const auto chunk = layout_.segment_begin(plan_.steps[source.step].segment) + source.next++;
  return {source.step, chunk, Place::input, no_slot, source.hop};
}

ChunkSend Executor::send_of(std::uint32_t position, const Pending& pending) const {
  const auto& step = plan_.steps[pending.step];
  ChunkSend send{position,
                 pending.step,
                 step.to[pending.hop].step,
                 pending.chunk,
                 step.signals ? 0 : chunk_bytes(pending.chunk, step.out),
                 pending.place,
                 pending.slot,
                 false,
                 false};
  const bool own = pending.place == Place::input;
  send.scale_own = own && step.out == Wire::accumulator && !layout_.hidden(pending.chunk);
  send.encode = own && step.out == Wire::quantized;
  return send;
}

bool Executor::sent(const ChunkSend& send, std::vector<Work>& work) {
  if (options_.in_place && send.place == Place::input && --unsent_[send.chunk] == 0) {
    const auto& segment = plan_.steps[send.own_step].segment;
    for (std::uint16_t step = 0; step < plan_.steps.size(); ++step)
      if (plan_.steps[step].merge == Merge::fold && plan_.steps[step].segment == segment)
        fold_if_due(step, send.chunk, work);
  }
  if (send.place != Place::slot) return false;
  const auto it = slot_users_.find(send.slot);
  if (it == slot_users_.end() || --it->second > 0) return false;
  slot_users_.erase(it);
  return true;
}

std::vector<std::uint32_t> Executor::sources() const {
  std::vector<std::uint32_t> positions;
  for (const auto& step : plan_.steps)
    if (step.from >= 0) positions.push_back(std::uint32_t(step.from));
  std::sort(positions.begin(), positions.end());
  positions.erase(std::unique(positions.begin(), positions.end()), positions.end());
  return positions;
}

std::vector<std::uint32_t> Executor::targets() const {
  std::vector<std::uint32_t> positions;
  for (const auto& [position, target] : targets_) positions.push_back(position);
  return positions;
}

}  // namespace pccl
