// Of Exchange: what came before this peer knows of its operation, or of its view.
#include "runtime/exchange.hpp"

namespace pccl {

namespace {
// What a parked frame costs besides its bytes: also an empty one fills memory.
constexpr std::size_t parked_frame_bytes = 512;
}  // namespace

// Each peer has a share of its own: a READY that is dropped is a peer that waits for ever.
bool Exchange::may_park_ready(PeerId from, const Ready& ready) const {
  std::size_t operations = 1, tensors = ready.descriptor.tensors.size();
  for (auto it = ready_parked_.lower_bound({from, OpKey{}});
       it != ready_parked_.end() && it->first.first == from; ++it)
    ++operations, tensors += it->second.ready.descriptor.tensors.size();
  return operations <= limits::operations_open_max && tensors <= limits::ready_tensors_max;
}

// It is in no view that is known here, and nothing of a view that comes can have arrived on a link that is
// gone.
bool Exchange::departed(PeerId peer) const {
  return session_.view().find(peer) == nullptr && !session_.link_up(peer);
}

bool Exchange::may_park(PeerId from, std::size_t bytes) const {
  const auto it = parked_bytes_.find(from);
  return (it == parked_bytes_.end() ? 0 : it->second) + parked_frame_bytes + bytes <=
         limits::parked_bytes_max;
}

// What is sent again, as its stripe broke, may be here already: one of the two is enough, or stripes that
// break often would fill what may be parked.
ParkedId Exchange::park(PeerId from, const wire::DataHeader& header) {
  const auto id = next_parked_++;
  const auto identity = identity_of(from, header);
  if (const auto copy = parked_as_.find(identity); copy != parked_as_.end()) discard(copy->second);
  for (auto older = parked_as_.lower_bound({from, {}, {}, 0, 0}); older != parked_as_.end() &&
                                                                  std::get<0>(older->first) == from &&
                                                                  std::get<1>(older->first) < header.view;)
    discard((older++)->second);
  parked_as_[identity] = id;
  parked_[id] = {from, header};
  parked_bytes_[from] += parked_frame_bytes + header.bytes;
  return id;
}

void Exchange::discard(ParkedId id) {
  const auto it = parked_.find(id);
  const auto& [from, header] = it->second;
  parked_bytes_[from] -= parked_frame_bytes + header.bytes;
  parked_as_.erase(identity_of(from, header));
  parked_.erase(it);
  emit(exchange_effect::Discard{id});
}

// Its sender has gone on to another view: nothing that this peer has not even begun was committed before.
// Else somebody who hears of views late would have to keep what was sent in each of them.
bool Exchange::overtaken(PeerId from, ViewId view) const {
  const auto last = parked_as_.lower_bound({from + 1, {}, {}, 0, 0});
  if (last == parked_as_.begin()) return false;
  const auto& newest = std::prev(last)->first;
  return std::get<0>(newest) == from && std::get<1>(newest) > view;
}

Exchange::FrameId Exchange::identity_of(PeerId from, const wire::DataHeader& header) {
  return {from, header.view, header.key, header.step, header.chunk};
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
    if (auto& held = parked_bytes_[frame.from]; (held -= parked_frame_bytes + frame.header.bytes) == 0)
      parked_bytes_.erase(frame.from);
    parked_as_.erase(identity_of(frame.from, frame.header));
    if (older)
      emit(exchange_effect::Discard{id});
    else
      emit(exchange_effect::Replay{id});
    it = parked_.erase(it);
  }
}

}  // namespace pccl
