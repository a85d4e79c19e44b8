#include "collective/executor.hpp"

#include <algorithm>

namespace pccl {

Executor::Executor(Plan plan, Layout layout, Options options)
    : plan_(std::move(plan)),
      layout_(std::move(layout)),
      options_(options),
      arrived_(plan_.steps.size()),
      kept_(layout_.chunks()),
      unsent_(layout_.chunks()),
      ready_(plan_.world, options.eager) {
  for (const auto& step : plan_.steps) {
    const auto chunks = layout_.chunks_in(step.segment);
    state_.emplace_back(step.from < 0 ? 0 : chunks, Chunkstate::expected);
    missing_ += step.merge == Merge::fold ? chunks : state_.back().size();
    for (const auto& hop : step.to) pending_[hop.position];
    if (options_.weighted && step.segment >= plan_.world && step.from >= 0) weights_missing_ += chunks;
  }
}

void Executor::start(std::vector<Work>& work) {
  for (std::uint16_t s = 0; s < plan_.steps.size(); ++s) {
    const auto& step = plan_.steps[s];
    if (step.merge != Merge::own) continue;
    for (auto c = layout_.segment_begin(step.segment); c < layout_.segment_end(step.segment); ++c) {
      // Where a tensor's output is its input there is nothing to copy; the memory knows, tensor by tensor.
      if (step.write) work.push_back({.step = s, .chunk = c, .merge = Merge::own, .to_output = true});
      forward(s, c, Place::input, no_slot);
    }
  }
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
  if (bytes != chunk_bytes(chunk, s.in) || state(step, chunk) != Chunkstate::expected) return {};
  state(step, chunk) = Chunkstate::arriving;
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
  if (s.merge == Merge::collect) return collect(step, chunk, slot, work);
  if (s.merge == Merge::replace) {
    --missing_;
    if (s.in == Wire::quantized) decode(step, chunk, slot, work);
    if (s.in == Wire::element) forward(step, chunk, Place::output, no_slot);
    if (!options_.weighted || s.segment < plan_.world || --weights_missing_ != 0) return;
    for (const auto& held : std::exchange(held_, {})) merge(held.step, held.chunk, held.slot, work);
    for (auto it = parts_.begin(); it != parts_.end();) {
      const auto [fold, due] = (it++)->first;  // it ends where the fold is done
      fold_if_due(fold, due, work);
    }
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
  const bool from_slot = !s.to.empty() && !spill && !(s.write && options_.in_place && !options_.weighted);
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
  const auto fold = std::uint16_t(plan_.steps[step].fold);
  const auto& order = plan_.steps[fold].parts;
  auto& parts = parts_[{fold, chunk}];
  if (parts.slots.empty()) {
    parts.slots.assign(order.size(), no_slot);
    parts.missing = order.size() - 1;
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
  const bool from_slot = !s.to.empty() && !spill;
  work.push_back({.step = step,
                  .chunk = chunk,
                  .slot = slot,
                  .merge = Merge::fold,
                  .to_output = s.write,
                  .keep = s.write && take_keep(chunk),
                  .to_slot = from_slot,
                  .free_slot = !from_slot,
                  .parts = std::move(parts)});
  if (from_slot) slot_users_[slot] = std::uint32_t(s.to.size());
  forward(step, chunk, from_slot ? Place::slot : Place::output, from_slot ? slot : no_slot);
}

void Executor::forward(std::uint16_t step, std::uint32_t chunk, Place place, SlotId slot) {
  const auto& s = plan_.steps[step];
  if (place == Place::input) unsent_[chunk] += std::uint32_t(s.to.size());
  for (std::size_t hop = 0; hop < s.to.size(); ++hop)
    pending_.at(s.to[hop].position).push({step, chunk, place, slot, hop});
}

bool Executor::sendable(std::uint32_t position) const {
  const auto it = pending_.find(position);
  return it != pending_.end() && !it->second.empty() && ready_.at(position) && gate_open(it->second.top());
}

bool Executor::gate_open(const Pending& pending) const {
  const auto& step = plan_.steps[pending.step];
  if (step.gate < 0) return true;
  return pending.chunk - layout_.segment_begin(step.segment) <
         arrived_[std::size_t(step.gate)] + options_.window;
}

std::optional<ChunkSend> Executor::next(std::uint32_t position) {
  if (!sendable(position)) return std::nullopt;
  auto& queue = pending_.at(position);
  const auto first = queue.top();
  queue.pop();
  const auto& step = plan_.steps[first.step];
  ChunkSend send{position,
                 first.step,
                 step.to[first.hop].step,
                 first.chunk,
                 chunk_bytes(first.chunk, step.out),
                 first.place,
                 first.slot,
                 false,
                 false};
  send.scale_own =
      first.place == Place::input && step.out == Wire::accumulator && !layout_.hidden(first.chunk);
  send.encode = first.place == Place::input && step.out == Wire::quantized;
  return send;
}

bool Executor::sent(const ChunkSend& send, std::vector<Work>& work) {
  if (send.place == Place::input && --unsent_[send.chunk] == 0) {
    const auto& segment = plan_.steps[send.own_step].segment;
    for (std::uint16_t step = 0; options_.in_place && step < plan_.steps.size(); ++step)
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
  for (const auto& [position, queue] : pending_) positions.push_back(position);
  return positions;
}

}  // namespace pccl
