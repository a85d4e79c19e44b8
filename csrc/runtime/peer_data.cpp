// A peer's data path inwards: what links tell, where an arriving chunk lands, what the exchange wants done.
// What leaves is in peer_outgoing.cpp, shared state in peer_blocks.cpp. On the I/O thread.
#include <algorithm>
#include <cstring>

#include "base/crc32c.hpp"
#include "runtime/link_speeds.hpp"
#include "runtime/peer_runtime.hpp"

namespace pccl {

// ---- links ----

void PeerRuntime::link_up(PeerId peer) {
  forget_in_flight(peer);  // of a link that this one replaces
  if (const auto hello = same_host_.hello()) links_.send(peer, *hello);
  note(EventKind::link_up, monotonic_now(), peer);
  if (session_ == nullptr) return;
  // With the proof that it is there. Who is a member already leaves that to the one at the door.
  if (session_->stage() == Session::Stage::door)
    session_->note_links({{peer, 0, round_trip_us(links_, peer), Evidence::at_least}}, monotonic_now());
  session_->on_link_up(peer, monotonic_now());
  exchange_->on_link_up(peer);
  send_fetches(peer);
  drain();
}

void PeerRuntime::link_down(PeerId peer, const std::string& why) {
  note(EventKind::link_lost, monotonic_now(), peer);
  ++totals_.links_lost;
  speeds_.forget(peer);
  full_.erase(peer);
  forget_in_flight(peer);
  if (session_ == nullptr) return;
  session_->on_link_down(peer, false, why, monotonic_now());
  drain();
}

void PeerRuntime::dial_failed(PeerId peer, bool refused, const std::string& why) {
  if (session_ == nullptr) return;
  session_->on_dial_failed(peer, refused, why, monotonic_now());
  drain();
}

bool PeerRuntime::link_message(PeerId peer, const BetweenPeers& message) {
  if (const auto* ready = std::get_if<Ready>(&message)) {
    if (!exchange_->on_ready(peer, *ready)) return false;
    if (recorder_.on()) note(EventKind::ready, monotonic_now(), ready->key, ready->descriptor.call, peer);
  } else if (const auto* request = std::get_if<BlockRequest>(&message)) {
    if (sends_.blocks_to(peer) >= limits::blocks_in_flight_max) return false;
    serve_block(peer, *request);
  } else if (const auto* failed = std::get_if<BlockFailed>(&message)) {
    if (const auto it = states_.find(failed->key); it != states_.end() && it->second->view == failed->view) {
      StateEvent event(StateEvent::Kind::failed);
      event.entry = failed->entry;
      event.text = failed->why;
      event.donor = peer;
      it->second->events.push(std::move(event));
    }
  } else if (!host_message(peer, message)) {
    return false;
  }
  drain();
  return true;
}

net::Landing PeerRuntime::link_payload(PeerId peer, net::Connection& stripe, wire::FrameKind kind,
                                       ByteView head, std::size_t bytes) {
  if (kind == wire::FrameKind::probe) return {};
  return kind == wire::FrameKind::chunk ? land_chunk(peer, stripe, head, bytes)
                                        : land_block(peer, stripe, head, bytes);
}

void PeerRuntime::stripe_closed(net::Connection& stripe) {
  sends_.closed(&stripe);
  if (auto node = incoming_.extract(&stripe); !node.empty()) unland(std::move(node.mapped()));
}

// READYs and requests may have been on it as well: both may be said twice.
void PeerRuntime::stripe_broke(PeerId peer, net::Connection& stripe) {
  if (session_ == nullptr) return;
  for (auto& send : sends_.take(&stripe))
    if (!send.block) again_[peer].push_back(std::move(send));
  for (auto& fetch : fetches_)
    if (fetch.donor == peer) fetch.sent = false;
  send_fetches(peer);
  offer_again(peer);
  exchange_->on_link_up(peer);
  drain();
}

void PeerRuntime::stripe_added(PeerId peer, const std::string& mended) {
  if (!mended.empty()) log(mended);
  woken_.push_back(peer);
  drain();
}

// ---- receiving ----

// Where the bytes of an accepted chunk go; the output's old bytes are kept first when they are the caller's
// input.
std::uint8_t* PeerRuntime::prepare(PeerId from, const wire::DataHeader& header, const Landing& landing,
                                   Incoming& incoming) {
  const auto* attempt = exchange_->find(header.key);
  auto& running = running_.at(header.key);
  note_arriving(from, header.key, header.bytes);
  incoming.header = header;
  incoming.attempt = attempt->id;
  if (landing.kind == Landing::Kind::signal) return &nothing_;
  if (landing.kind == Landing::Kind::slot) {
    // Sums grow where their parts came to, but for encodings.
    const auto& executor = *attempt->executor;
    const bool encoded = executor.plan().steps[header.step].in == Wire::quantized;
    const auto sums = encoded ? 0 : executor.chunk_bytes(header.chunk, Wire::accumulator);
    incoming.slot = slots_.take(attempt->id, std::max(sums, header.bytes));
    return slots_.data(incoming.slot);
  }
  if (landing.keep) running.memory->keep(*attempt->executor, header.chunk);
  return running.memory->output(attempt->executor->layout().chunk(header.chunk));
}

// A chunk that broke off comes again: now, or its first half may still be there.
void PeerRuntime::unland(Incoming incoming) {
  if (incoming.kind == Incoming::Kind::block) {
    if (incoming.fetch) fetches_.push_back(*incoming.fetch);
  } else if (incoming.kind == Incoming::Kind::chunk && exchange_ != nullptr) {
    if (incoming.slot != no_slot) slots_.give(incoming.slot);
    if (const auto it = running_.find(incoming.header.key); it != running_.end())
      it->second.received -= incoming.header.bytes;
    exchange_->unland(incoming.header, incoming.attempt);
  }
}

// Who sends a chunk again has given up the stripe that it is arriving on: unless what begins to arrive now is
// the older one of the two, left over on a stripe that was given up in the meantime.
void PeerRuntime::make_room_for(const wire::DataHeader& header) {
  links_.each_stripe([&](PeerId, net::Connection& stripe) {
    const auto it = incoming_.find(&stripe);
    if (it == incoming_.end() || it->second.kind != Incoming::Kind::chunk) return;
    const auto& other = it->second.header;
    if (other.view != header.view || other.key != header.key || other.step != header.step ||
        other.chunk != header.chunk || other.attempt >= header.attempt)
      return;
    stripe.discard_incoming();
    unland(std::move(incoming_.extract(it).mapped()));
  });
}

net::Landing PeerRuntime::land_chunk(PeerId peer, net::Connection& stripe, ByteView head, std::size_t bytes) {
  auto header = wire::load_data(head.data());
  if (!header || header->bytes != bytes) return {.close = true};
  if (header->key.scope == Scope::pair) header->key.from = peer, header->key.to = session_->peer();
  if (header->attempt > 0) make_room_for(*header);
  const auto landing = exchange_->land(peer, *header);
  if (landing.kind == Landing::Kind::skip) return {};
  Incoming incoming;
  std::uint8_t* to = nullptr;
  if (landing.kind == Landing::Kind::park) {
    if (!exchange_->may_park(peer, bytes)) return {.close = true};
    incoming.kind = Incoming::Kind::parked;
    incoming.header = *header;
    incoming.buffer = std::make_unique_for_overwrite<std::uint8_t[]>(std::max<std::size_t>(bytes, 1));
    to = incoming.buffer.get();
  } else {
    to = prepare(peer, *header, landing, incoming);
  }
  incoming.to = to;
  incoming_[&stripe] = std::move(incoming);
  return {.to = to};
}

bool PeerRuntime::link_payload_end(PeerId peer, net::Connection& stripe) {
  const auto it = incoming_.find(&stripe);
  if (it == incoming_.end()) return true;
  auto incoming = std::move(it->second);
  incoming_.erase(it);
  if (incoming.header.checked && crc32c({incoming.to, incoming.header.bytes}) != incoming.header.checksum) {
    unland(std::move(incoming));
    return false;
  }
  if (incoming.kind == Incoming::Kind::parked) {
    offer_parked(peer, incoming.header, std::move(incoming.buffer));
  } else if (incoming.kind == Incoming::Kind::chunk) {
    session_->note_moved(incoming.header.key);
    note_arrived(peer, incoming.header.key);
    exchange_->arrived(incoming.header, incoming.slot);
    gather(incoming.header);
  } else {
    block_arrived(incoming.block);
  }
  drain();
  return true;
}

// A frame that came before its operation or view: used now, or kept on.
void PeerRuntime::offer_parked(PeerId from, const wire::DataHeader& header,
                               std::unique_ptr<std::uint8_t[]> bytes) {
  const auto landing = exchange_->land(from, header);
  if (landing.kind == Landing::Kind::skip) return;
  if (landing.kind == Landing::Kind::park) {
    const auto id = exchange_->park(from, header);
    parked_headers_[id] = {from, header};
    parked_[id] = std::move(bytes);
    return;
  }
  Incoming incoming;
  std::memcpy(prepare(from, header, landing, incoming), bytes.get(), header.bytes);
  exchange_->arrived(header, incoming.slot);
  gather(header);
}

// ---- the exchange's effects ----

void PeerRuntime::apply(exchange_effect::SendReady& e) { links_.send(e.to, std::move(e.ready)); }
void PeerRuntime::apply(exchange_effect::Wake& e) { woken_.push_back(e.peer); }
void PeerRuntime::apply(exchange_effect::Complete& e) {
  if (!exchange_->current(e.key, e.attempt)) return;
  const auto now = monotonic_now();
  if (const auto it = running_.find(e.key); it != running_.end()) {
    it->second.held = now;
    note_flows(e.key, it->second);
    note(EventKind::done, now, e.key, it->second.call);
  }
  session_->attempt_complete(e.key, now);
}
void PeerRuntime::apply(exchange_effect::More& e) { unfinished_.push_back(e); }
void PeerRuntime::apply(exchange_effect::Mismatch& e) {
  if (exchange_->current(e.key, e.attempt))
    session_->abandon(e.key, ErrorCode::mismatch, e.text, monotonic_now());
}

void PeerRuntime::apply(exchange_effect::Do& e) {
  const auto* attempt = exchange_->find(e.key);
  const auto it = running_.find(e.key);
  if (attempt == nullptr || attempt->id != e.attempt || it == running_.end()) return;
  const auto& executor = *attempt->executor;
  if (it->second.memory->run(executor, e.work, slots_)) return;
  if (it->second.memory->all_skipped()) return none_finite(e.key);
  const auto tensor = "tensor " + std::to_string(executor.layout().chunk(e.work.chunk).tensor);
  const bool own = !it->second.memory->own_is_finite(executor, e.work.chunk);
  not_finite(e.key, own ? tensor : "the sum of " + tensor, own);
}

void PeerRuntime::apply(exchange_effect::Replay& e) {
  auto node = parked_.extract(e.parked);
  const auto header = parked_headers_.extract(e.parked);
  if (!node.empty() && !header.empty())
    offer_parked(header.mapped().first, header.mapped().second, std::move(node.mapped()));
}

void PeerRuntime::apply(exchange_effect::Discard& e) {
  parked_.erase(e.parked);
  parked_headers_.erase(e.parked);
}

}  // namespace pccl
