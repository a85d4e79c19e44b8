// A peer's data path between processes of one host: a chunk is offered by its place, the receiver reads it
// where it lies, and says so. Everything else is as with chunks that are sent.
#include <algorithm>
#include <cstring>

#include "runtime/peer_runtime.hpp"

namespace pccl {

namespace {

// What one peer may be offered and has not taken: enough that it never waits for the next.
constexpr std::size_t offers_max = limits::references_max / 2;
// Of these, what may wait here for the other parts of its sum. Peers that post operations in different orders
// would else wait for each other: each has offered all that it may, and nothing that the other's would go
// with.
constexpr std::size_t kept_max = offers_max / 2;
// Between two looks at sockets, so that results leave while they are in the cache.
constexpr std::size_t taken_at_once = 1u << 20;
// Told at once; fewer wait until there is nothing else to do.
constexpr std::size_t tell_from = 64;

}  // namespace

// ---- giving ----

bool PeerRuntime::may_offer(PeerId peer) const {
  const auto it = offered_.find(peer);
  return same_host_.ways(peer) != 0 && (it == offered_.end() || it->second < offers_max);
}

bool PeerRuntime::offer_chunk(PeerId peer, Sends::Send& send, const std::uint8_t* data) {
  const auto offer = same_host_.offer(peer, data, send.outgoing.send.bytes);
  if (!offer) return false;
  if (offer->show) links_.send(peer, *offer->show);
  note_sent(peer, send.key, send.outgoing.send.bytes);
  const ChunkAt chunk{send.outgoing.header, next_offer_++, offer->segment, offer->at};
  links_.send(peer, chunk);
  ++offered_[peer];
  offers_[chunk.number] = {peer, std::move(send), chunk};
  return true;
}

// A stripe broke, and what was said on it may be lost. Who has heard of an offer does not mind it twice.
void PeerRuntime::offer_again(PeerId peer) {
  same_host_.show_again(peer);
  for (const auto& [number, offered] : offers_) {
    if (offered.peer != peer) continue;
    if (const auto* payload = source_of(offers_.at(number).send))
      if (const auto offer = same_host_.offer(peer, payload, offered.chunk.header.bytes);
          offer && offer->show)
        links_.send(peer, *offer->show);
    links_.send(peer, offered.chunk);
  }
}

void PeerRuntime::chunks_taken(PeerId peer, const ChunksTaken& message) {
  same_host_.failing(peer, message.failing);
  exchange_->set_reader(peer, same_host_.ways(peer) != 0);
  const auto extract = [&](std::uint64_t number) {
    const auto it = offers_.find(number);  // none: of an attempt that is over
    if (it == offers_.end() || it->second.peer != peer) return std::optional<Sends::Send>();
    --offered_[peer];
    return std::optional(std::move(offers_.extract(it).mapped().send));
  };
  for (const auto number : message.taken)
    if (auto send = extract(number)) {
      release(*send);
      if (send->temporary != no_slot) slots_.give(send->temporary);
    }
  for (const auto number : message.wanted)
    if (auto send = extract(number)) {
      running_.at(send->key).sent -= send->outgoing.send.bytes;
      send->as_bytes = true;
      again_[peer].push_back(std::move(*send));
    }
  woken_.push_back(peer);
}

void PeerRuntime::forget_offers(const std::function<bool(const Offered&)>& which) {
  std::erase_if(offers_, [&](const auto& entry) {
    const auto& offered = entry.second;
    if (!which(offered)) return false;
    if (offered.send.temporary != no_slot) slots_.give(offered.send.temporary);
    --offered_[offered.peer];
    woken_.push_back(offered.peer);
    return true;
  });
}

// ---- hearing ----

bool PeerRuntime::host_message(PeerId peer, const BetweenPeers& message) {
  if (const auto* hello = std::get_if<HostHello>(&message)) {
    links_.send(peer, same_host_.on_hello(peer, *hello));
    if (const auto vain = same_host_.lacking(peer))
      log("peer " + std::to_string(peer) + " is on this host, but its memory cannot be read from here by " +
          name_of_ways(vain) + " (another user, container, or a limit on ptrace): other ways are used");
  } else if (const auto* answer = std::get_if<HostAnswer>(&message)) {
    same_host_.on_answer(peer, *answer);
    exchange_->set_reader(peer, same_host_.ways(peer) != 0);
  } else if (const auto* segment = std::get_if<SegmentAt>(&message)) {
    return same_host_.on_segment(peer, *segment);
  } else if (const auto* gone = std::get_if<SegmentGone>(&message)) {
    same_host_.on_segment_gone(peer, *gone);
  } else if (const auto* taken = std::get_if<ChunksTaken>(&message)) {
    chunks_taken(peer, *taken);
  } else if (const auto* block = std::get_if<BlockAt>(&message)) {
    take_block(peer, *block);
  } else if (const auto* chunk = std::get_if<ChunkAt>(&message)) {
    return hear_of(peer, *chunk);
  } else {
    return false;
  }
  return true;
}

bool PeerRuntime::hear_of(PeerId peer, const ChunkAt& chunk) {
  auto& [numbers, queued] = borrowing_[peer];
  if (chunk.header.bytes > limits::chunk_bytes_max || numbers.size() >= limits::references_max) return false;
  if (numbers.insert(chunk.number).second) references_.push_back({peer, chunk}), ++queued;
  return true;
}

// ---- taking ----

void PeerRuntime::take_references() {
  for (std::size_t bytes = 0; !references_.empty() && bytes < taken_at_once;) {
    const auto reference = std::move(references_.front());
    references_.pop_front();
    --borrowing_.at(reference.peer).queued;
    bytes += reference.chunk.header.bytes;
    take_reference(reference);
    drain();
  }
  tell_taken(references_.empty());
}

void PeerRuntime::take_reference(const Reference& reference) {
  const auto& header = reference.chunk.header;
  const auto source = same_host_.locate(reference.peer, reference.chunk);
  if (const auto* unreachable = std::get_if<SameHost::Unreachable>(&source))
    return want_bytes(reference, unreachable->failing);
  const auto landing = exchange_->land(reference.peer, header);
  if (landing.kind == Landing::Kind::skip) return note_taken(reference.peer, reference.chunk.number);
  if (landing.kind == Landing::Kind::park) return want_bytes(reference, 0);  // they can wait, a place cannot
  if (const auto* mapped = std::get_if<SameHost::Mapped>(&source))
    return take_mapped(reference, landing, *mapped);
  const auto* attempt = exchange_->find(header.key);
  const auto sum = attempt->executor->plan().steps[header.step].fold;
  if (sum < 0) return read_reference(reference, landing);
  if (keeps_many(reference.peer)) {
    read_reference(reference, landing);
    return gather(header);
  }
  gathering_[{attempt->id, sum, header.chunk}].push_back(reference);
  gather(header);
}

// More of what this peer offers waits here than may: what comes now is taken at once.
bool PeerRuntime::keeps_many(PeerId peer) const {
  const auto& [numbers, queued] = borrowing_.at(peer);
  return numbers.size() - queued > kept_max;
}

// Copied once where the bytes themselves are the result; everything else is computed from where they lie.
void PeerRuntime::take_mapped(const Reference& reference, const Landing& landing, SameHost::Mapped source) {
  const auto& header = reference.chunk.header;
  const auto* attempt = exchange_->find(header.key);
  session_->note_moved(header.key);
  if (landing.kind == Landing::Kind::slot && keeps_many(reference.peer)) {
    Incoming incoming;
    std::memcpy(prepare(reference.peer, header, landing, incoming), source.data, header.bytes);
    note_taken(reference.peer, reference.chunk.number);
    exchange_->arrived(header, incoming.slot);
    return gather(header);
  }
  if (landing.kind == Landing::Kind::slot) {
    note_arriving(reference.peer, header.key, header.bytes);
    const auto slot = slots_.borrow(
        attempt->id, {source.data, std::move(source.keep), reference.peer, reference.chunk.number});
    exchange_->arrived(header, slot);
    return gather(header);
  }
  Incoming incoming;
  prepare(reference.peer, header, landing, incoming);
  running_.at(header.key).memory->take(attempt->executor->layout().chunk(header.chunk), source.data);
  note_taken(reference.peer, reference.chunk.number);
  exchange_->arrived(header, no_slot);
}

// Once every part of a sum has come, or can be read.
void PeerRuntime::gather(const wire::DataHeader& header) {
  if (gathering_.empty()) return;
  const auto* attempt = exchange_->find(header.key);
  if (attempt == nullptr || header.step >= attempt->executor->plan().steps.size()) return;
  const auto sum = attempt->executor->plan().steps[header.step].fold;
  const auto it = gathering_.find({attempt->id, sum, header.chunk});
  if (it == gathering_.end()) return;
  if (attempt->executor->parts_missing(header.step, header.chunk) > it->second.size()) return;
  const auto references = std::move(it->second);
  gathering_.erase(it);
  for (const auto& reference : references) read_reference(reference, {Landing::Kind::slot, false});
}

void PeerRuntime::read_reference(const Reference& reference, const Landing& landing) {
  const auto& header = reference.chunk.header;
  const auto source = same_host_.locate(reference.peer, reference.chunk);
  const auto* remote = std::get_if<SameHost::Remote>(&source);
  Incoming incoming;
  auto* to = prepare(reference.peer, header, landing, incoming);
  if (remote == nullptr || !read_process_memory(remote->process, remote->address, to, header.bytes)) {
    unland(std::move(incoming));
    return want_bytes(reference, read_process);
  }
  note_taken(reference.peer, reference.chunk.number);
  session_->note_moved(header.key);
  exchange_->arrived(header, incoming.slot);
}

void PeerRuntime::want_bytes(const Reference& reference, LocalWays failing) {
  auto& told = taken_[reference.peer];
  told.wanted.push_back(reference.chunk.number);
  borrowing_[reference.peer].numbers.erase(reference.chunk.number);
  if (failing != 0 && (told.failing & failing) == 0)
    log("what peer " + std::to_string(reference.peer) + " offers by " + name_of_ways(failing) +
        " cannot be read any more: it sends it by TCP");
  told.failing |= failing;
}

// ---- telling ----

void PeerRuntime::note_taken(PeerId peer, std::uint64_t number) {
  taken_[peer].taken.push_back(number);
  borrowing_[peer].numbers.erase(number);
}

void PeerRuntime::tell_taken(bool all) {
  for (const auto& bytes : slots_.take_given_back()) note_taken(bytes.peer, bytes.number);
  for (auto it = taken_.begin(); it != taken_.end();) {
    auto& [peer, message] = *it;
    const auto count = message.taken.size() + message.wanted.size();
    const bool tell = count > 0 && (all || count >= tell_from || !message.wanted.empty());
    if (tell) links_.send(peer, message);
    it = tell || count == 0 ? taken_.erase(it) : std::next(it);
  }
}

// The link is gone, or another takes its place.
void PeerRuntime::forget_references(PeerId peer) {
  same_host_.link_lost(peer);
  if (exchange_ != nullptr) exchange_->set_reader(peer, false);
  forget_offers([&](const Offered& offered) { return offered.peer == peer; });
  offered_.erase(peer);
  std::erase_if(references_, [&](const Reference& reference) { return reference.peer == peer; });
  for (auto& [sum, references] : gathering_)
    std::erase_if(references, [&](const Reference& reference) { return reference.peer == peer; });
  std::erase_if(gathering_, [](const auto& entry) { return entry.second.empty(); });
  borrowing_.erase(peer);
  taken_.erase(peer);
}

// The operation's attempt is over here: nothing of it is offered, or read, any more.
void PeerRuntime::forget_references(const OpKey& key) {
  forget_offers([&](const Offered& offered) { return offered.send.key == key; });
  const auto* attempt = exchange_->find(key);
  if (attempt == nullptr) return;
  std::erase_if(gathering_, [&](const auto& entry) {
    if (std::get<0>(entry.first) != attempt->id) return false;
    for (const auto& reference : entry.second) note_taken(reference.peer, reference.chunk.number);
    return true;
  });
}

}  // namespace pccl
