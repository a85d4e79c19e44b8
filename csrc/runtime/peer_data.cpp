// A peer's data path: which chunk leaves on which stripe, where an arriving one lands, and blocks of shared
// state.
#include <algorithm>
#include <cstring>

#include "runtime/peer_runtime.hpp"

namespace pccl {

// ---- links ----

void PeerRuntime::link_up(PeerId peer) {
  forget_in_flight(peer);  // of a link that this one replaces
  if (session_ == nullptr) return;
  session_->on_link_up(peer, monotonic_now());
  exchange_->on_link_up(peer);
  send_fetches(peer);
  drain();
}

void PeerRuntime::link_down(PeerId peer, const std::string& why) {
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
  } else if (const auto* request = std::get_if<BlockRequest>(&message)) {
    if (blocks_in_flight(peer) >= limits::blocks_in_flight_max) return false;
    serve_block(peer, *request);
  } else if (const auto* failed = std::get_if<BlockFailed>(&message)) {
    if (const auto it = states_.find(failed->key); it != states_.end() && it->second->view == failed->view) {
      StateEvent event(StateEvent::Kind::failed);
      event.entry = failed->entry;
      event.text = failed->why;
      event.donor = peer;
      it->second->events.push(std::move(event));
    }
  }
  drain();
  return true;
}

net::Landing PeerRuntime::link_payload(PeerId peer, net::Connection& stripe, wire::FrameKind kind,
                                       ByteView head, std::size_t bytes) {
  return kind == wire::FrameKind::chunk ? land_chunk(peer, stripe, head, bytes)
                                        : land_block(peer, stripe, head, bytes);
}

void PeerRuntime::stripe_closed(net::Connection& stripe) { incoming_.erase(&stripe); }

// ---- sending ----

void PeerRuntime::pump(PeerId peer) {
  while (auto* stripe = links_.stripe_for_chunk(peer)) {
    auto outgoing = exchange_->next(peer);
    if (!outgoing) return;
    send_chunk(peer, *stripe, std::move(*outgoing));
  }
}

void PeerRuntime::send_chunk(PeerId peer, net::Connection& stripe, Outgoing outgoing) {
  auto& running = running_.at(outgoing.key);
  const auto& executor = *exchange_->find(outgoing.key)->executor;
  const auto& send = outgoing.send;
  const auto& chunk = executor.layout().chunk(send.chunk);
  InFlight record{peer, false, outgoing, outgoing.key, no_slot};
  const std::uint8_t* payload = nullptr;
  if (send.encode) {
    record.temporary = slots_.take(outgoing.attempt, send.bytes);
    if (!running.memory->encode_own(executor, send.chunk, slots_.data(record.temporary))) {
      slots_.give(record.temporary);
      return not_finite(outgoing.key, "tensor " + std::to_string(chunk.tensor));
    }
    payload = slots_.data(record.temporary);
  } else if (send.scale_own) {
    record.temporary = slots_.take(outgoing.attempt, send.bytes);
    running.memory->scale_own(executor, send.chunk, slots_.data(record.temporary));
    payload = slots_.data(record.temporary);
  } else {
    payload = send.place == Place::slot     ? slots_.data(send.slot)
              : send.place == Place::output ? running.memory->output(chunk)
                                            : running.memory->input(chunk);
  }
  std::uint8_t head[wire::data_header_bytes];
  wire::store(outgoing.header, head);
  running.sent += send.bytes;
  stripe.send_payload(wire::FrameKind::chunk, {head, sizeof head}, payload, send.bytes,
                      in_flight_token(std::move(record)));
  links_.touch(stripe);
}

// What cannot be quantized fails everywhere, with the name of who brought it.
void PeerRuntime::not_finite(const OpKey& key, const std::string& what) {
  session_->abandon(key, ErrorCode::non_finite,
                    "peer " + std::to_string(session_->peer()) + " has values in " + what + " of " +
                        describe(key) + " that are not finite and cannot be quantized",
                    monotonic_now());
}

std::uint64_t PeerRuntime::in_flight_token(InFlight record) {
  if (in_flight_free_.empty()) {
    in_flight_free_.push_back(in_flight_.size());
    in_flight_.emplace_back();
  }
  const auto token = in_flight_free_.back();
  in_flight_free_.pop_back();
  in_flight_[token] = std::move(record);
  return token;
}

void PeerRuntime::link_sent(PeerId peer, std::uint64_t token) {
  if (token >= in_flight_.size() || in_flight_[token].peer != peer) return;
  auto record = std::exchange(in_flight_[token], {});
  in_flight_free_.push_back(token);
  if (record.temporary != no_slot) slots_.give(record.temporary);
  if (!record.block && exchange_->sent(record.outgoing)) slots_.give(record.outgoing.send.slot);
  woken_.push_back(peer);
  drain();
}

void PeerRuntime::forget_in_flight(PeerId peer) {
  for (std::uint64_t token = 0; token < in_flight_.size(); ++token) {
    if (in_flight_[token].peer != peer) continue;
    if (in_flight_[token].temporary != no_slot) slots_.give(in_flight_[token].temporary);
    in_flight_[token] = {};
    in_flight_free_.push_back(token);
  }
}

// The caller's memory is neither read nor written by any frame of this operation from here on.
void PeerRuntime::stop_using(const OpKey& key) {
  for (std::uint64_t token = 0; token < in_flight_.size(); ++token) {
    auto& record = in_flight_[token];
    if (record.peer == no_peer || record.key != key) continue;
    links_.detach(record.peer, token);
    woken_.push_back(record.peer);  // there is room again for other operations
    if (record.temporary != no_slot) slots_.give(record.temporary);
    record = {};
    in_flight_free_.push_back(token);
  }
  links_.each_stripe([&](PeerId, net::Connection& stripe) {
    const auto it = incoming_.find(&stripe);
    if (it == incoming_.end() || it->second.kind == Incoming::Kind::parked) return;
    if ((it->second.kind == Incoming::Kind::block ? it->second.block.key : it->second.header.key) != key)
      return;
    stripe.discard_incoming();
    incoming_.erase(it);
  });
  std::erase_if(fetches_, [&](const Fetch& fetch) { return fetch.request.key == key; });
  if (const auto* attempt = exchange_->find(key)) slots_.give_all(attempt->id);
  if (const auto it = states_.find(key); it != states_.end()) it->second->served.clear();
}

// ---- receiving ----

// Where the bytes of an accepted chunk go; the output's old bytes are kept first when they are the caller's
// input.
std::uint8_t* PeerRuntime::prepare(const wire::DataHeader& header, const Landing& landing,
                                   Incoming& incoming) {
  const auto* attempt = exchange_->find(header.key);
  auto& running = running_.at(header.key);
  running.received += header.bytes;
  incoming.header = header;
  incoming.attempt = attempt->id;
  if (landing.kind == Landing::Kind::signal) return &nothing_;
  if (landing.kind == Landing::Kind::slot) {
    // Encodings of a few elements are larger than these, scales and all.
    const auto accumulators = attempt->executor->chunk_bytes(header.chunk, Wire::accumulator);
    incoming.slot = slots_.take(attempt->id, std::max(accumulators, header.bytes));
    return slots_.data(incoming.slot);
  }
  if (landing.keep) running.memory->keep(*attempt->executor, header.chunk);
  return running.memory->output(attempt->executor->layout().chunk(header.chunk));
}

net::Landing PeerRuntime::land_chunk(PeerId peer, net::Connection& stripe, ByteView head, std::size_t bytes) {
  auto header = wire::load_data(head.data());
  if (!header || header->bytes != bytes) return {.close = true};
  if (header->key.scope == Scope::pair) header->key.from = peer, header->key.to = session_->peer();
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
    to = prepare(*header, landing, incoming);
  }
  incoming_[&stripe] = std::move(incoming);
  return {.to = to};
}

void PeerRuntime::link_payload_end(PeerId peer, net::Connection& stripe) {
  const auto it = incoming_.find(&stripe);
  if (it == incoming_.end()) return;
  auto incoming = std::move(it->second);
  incoming_.erase(it);
  if (incoming.kind == Incoming::Kind::parked) {
    offer_parked(peer, incoming.header, std::move(incoming.buffer));
  } else if (incoming.kind == Incoming::Kind::chunk) {
    session_->note_moved(incoming.header.key);
    exchange_->arrived(incoming.header, incoming.slot);
  } else if (const auto state = states_.find(incoming.block.key); state != states_.end()) {
    StateEvent event(StateEvent::Kind::block);
    event.entry = incoming.block.entry;
    event.hashes = incoming.block.hashes;
    event.offset = incoming.block.offset;
    event.bytes = incoming.block.bytes;
    state->second->events.push(std::move(event));
    session_->note_moved(incoming.block.key);
  }
  drain();
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
  std::memcpy(prepare(header, landing, incoming), bytes.get(), header.bytes);
  exchange_->arrived(header, incoming.slot);
}

// ---- the exchange's effects ----

void PeerRuntime::apply(exchange_effect::SendReady& e) { links_.send(e.to, std::move(e.ready)); }
void PeerRuntime::apply(exchange_effect::Wake& e) { woken_.push_back(e.peer); }
void PeerRuntime::apply(exchange_effect::Complete& e) {
  if (exchange_->current(e.key, e.attempt)) session_->attempt_complete(e.key, monotonic_now());
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
  const auto tensor = "tensor " + std::to_string(executor.layout().chunk(e.work.chunk).tensor);
  const bool own = !it->second.memory->own_is_finite(executor, e.work.chunk);
  not_finite(e.key, own ? tensor : "the sum of " + tensor);
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

// ---- blocks of shared state ----

std::size_t PeerRuntime::blocks_in_flight(PeerId peer) const {
  return std::size_t(std::count_if(in_flight_.begin(), in_flight_.end(), [&](const InFlight& record) {
    return record.peer == peer && record.block;
  }));
}

void PeerRuntime::serve_block(PeerId peer, const BlockRequest& request) {
  const auto it = states_.find(request.key);
  const auto refuse = [&](const char* why) {
    links_.send(peer, BlockFailed{request.key, request.view, request.entry, why});
  };
  if (it == states_.end() || it->second->view != request.view)
    return refuse("the donor is not in this synchronization");
  if (request.entry >= it->second->served.size()) return refuse("the donor offers no such tensor");
  const auto& entry = it->second->served[request.entry];
  const auto* data = request.hashes ? entry.hashes : entry.data;
  const auto size = request.hashes ? entry.hash_bytes : entry.bytes;
  if (request.bytes > limits::chunk_bytes_max || request.offset > size ||
      request.bytes > size - request.offset)
    return refuse("the range lies outside the tensor");
  std::uint8_t head[wire::data_header_bytes];
  wire::store(wire::BlockHeader{request.view, request.key, request.entry, request.hashes, request.offset,
                                request.bytes},
              head);
  auto* stripe = links_.stripe_for_block(peer);
  if (stripe == nullptr) return;
  it->second->sent += request.bytes;
  stripe->send_payload(wire::FrameKind::block, {head, sizeof head}, data + request.offset, request.bytes,
                       in_flight_token({peer, true, {}, request.key, no_slot}));
  links_.touch(*stripe);
}

void PeerRuntime::send_fetches(PeerId donor) {
  for (auto& fetch : fetches_) {
    if (fetch.donor != donor || fetch.sent) continue;
    fetch.sent = true;
    links_.send(donor, fetch.request);
  }
}

net::Landing PeerRuntime::land_block(PeerId peer, net::Connection& stripe, ByteView head, std::size_t bytes) {
  const auto block = wire::load_block(head.data());
  if (!block || block->bytes != bytes) return {.close = true};
  const auto it = std::find_if(fetches_.begin(), fetches_.end(), [&](const Fetch& f) {
    return f.donor == peer && f.request.key == block->key && f.request.view == block->view &&
           f.request.entry == block->entry && f.request.hashes == block->hashes &&
           f.request.offset == block->offset && f.request.bytes == block->bytes;
  });
  if (it == fetches_.end()) return {};  // asked for in an attempt that is over
  if (const auto state = states_.find(block->key); state != states_.end()) state->second->received += bytes;
  Incoming incoming;
  incoming.kind = Incoming::Kind::block;
  incoming.block = *block;
  incoming_[&stripe] = std::move(incoming);
  auto* to = it->to;
  fetches_.erase(it);
  return {.to = to};
}

}  // namespace pccl
