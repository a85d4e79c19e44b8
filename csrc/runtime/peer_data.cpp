// A peer's data path: which chunk leaves on which stripe, where an arriving one lands, and blocks of shared
// state.
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
  if (session_ == nullptr) return;
  // With the proof that it is there. Who is a member already leaves that to the one at the door.
  if (session_->stage() == Session::Stage::door)
    session_->note_links({{peer, 0, round_trip_us(links_, peer), Evidence::at_least}}, monotonic_now());
  session_->on_link_up(peer, monotonic_now());
  exchange_->set_distant(peer, links_.distant(peer));
  exchange_->on_link_up(peer);
  send_fetches(peer);
  drain();
}

void PeerRuntime::link_down(PeerId peer, const std::string& why) {
  speeds_.forget(peer);
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
  if (exchange_ != nullptr) exchange_->set_distant(peer, links_.distant(peer));
  woken_.push_back(peer);
  drain();
}

// ---- sending ----

// What is held until it is known to have come is bounded, per stripe.
bool PeerRuntime::may_take(const net::Connection& stripe) const {
  return sends_.held(&stripe) < limits::held_bytes_max;
}

// No stripe takes more, and there is more: the link is what is waited for.
void PeerRuntime::note_full(PeerId peer) {
  const auto now = monotonic_now();
  if (links_.up(peer) && speeds_.due(peer, now) && exchange_->sendable(peer)) speeds_.full(peer, now);
}

void PeerRuntime::pump(PeerId peer) {
  const Links::MayTake with_room = [this](const auto& stripe) { return may_take(stripe); };
  const bool bulk = exchange_->bulk(peer);
  for (;;) {
    auto* stripe = links_.stripe_for_chunk(peer, bulk, with_room);
    if (const auto it = again_.find(peer); stripe != nullptr && it != again_.end()) {
      auto send = std::move(it->second.front());
      it->second.pop_front();
      if (it->second.empty()) again_.erase(it);
      send_again(peer, *stripe, std::move(send));
      continue;
    }
    // What is offered by its place needs no room on a stripe; one chunk too many on it waits there.
    const bool crowded = stripe == nullptr;
    if (same_host_.ways(peer) != 0 && !may_offer(peer)) return;
    if (crowded && may_offer(peer)) stripe = links_.stripe_for_block(peer);
    if (stripe == nullptr) return note_full(peer);
    auto outgoing = exchange_->next(peer);
    if (!outgoing) {
      speeds_.ran_dry(peer);
      return links_.nothing_to_send(peer);
    }
    speeds_.sends(peer);
    Sends::Send send;
    send.key = outgoing->key;
    send.outgoing = std::move(*outgoing);
    if (!send_chunk(peer, *stripe, std::move(send)) && crowded) return;
  }
}

void PeerRuntime::send_again(PeerId peer, net::Connection& stripe, Sends::Send send) {
  if (!exchange_->current(send.key, send.outgoing.attempt)) return;
  auto& attempt = send.outgoing.header.attempt;
  if (attempt == UINT16_MAX)
    return session_->attempt_broken(send.key, peer, "one chunk was lost too often", monotonic_now());
  ++attempt;
  send_chunk(peer, stripe, std::move(send));
}

// Whether it stays where it is, and the peer takes it from there.
bool PeerRuntime::send_chunk(PeerId peer, net::Connection& stripe, Sends::Send send) {
  const auto* payload = source_of(send);
  if (payload == nullptr) return false;
  const auto bytes = send.outgoing.send.bytes;
  if (!send.as_bytes && offer_chunk(peer, send, payload)) return true;
  if (links_.checksums(peer)) {
    send.outgoing.header.checked = true;
    send.outgoing.header.checksum = crc32c({payload, bytes});
  }
  std::uint8_t head[wire::data_header_bytes];
  wire::store(send.outgoing.header, head);
  running_.at(send.key).sent += bytes;
  send.peer = peer;
  send.stripe = &stripe;
  send.gone = false;
  send.held_bytes = 0;
  stripe.send_payload(wire::FrameKind::chunk, {head, sizeof head}, payload, bytes,
                      sends_.add(std::move(send)));
  links_.touch(stripe);
  return false;
}

// Where the bytes are: for the first time, or after the stripe that had them broke. Whatever has overwritten
// a partial sum in the output was made of it, so that the receiver has it and skips what comes again.
const std::uint8_t* PeerRuntime::source_of(Sends::Send& send) {
  auto& running = running_.at(send.key);
  const auto& executor = *exchange_->find(send.key)->executor;
  const auto& chunk_send = send.outgoing.send;
  if (send.temporary != no_slot) return slots_.data(send.temporary);
  if (chunk_send.encode || chunk_send.scale_own) return made_for(send);
  if (chunk_send.place == Place::slot && !send.released) return slots_.read(chunk_send.slot);
  const auto& chunk = executor.layout().chunk(chunk_send.chunk);
  if (chunk_send.place != Place::input) return running.memory->output(chunk);
  if (!send.released) return running.memory->input(chunk);
  // The executor takes the own bytes for sent: in place, the sum may take theirs while these wait to leave
  // once more.
  const auto* own = running.memory->contribution(executor, chunk_send.chunk);
  if (own != running.memory->output(chunk)) return own;
  send.temporary = slots_.take(send.outgoing.attempt, chunk_send.bytes);
  std::memcpy(slots_.data(send.temporary), own, chunk_send.bytes);
  return slots_.data(send.temporary);
}

// The own input, as it travels. Null: it cannot.
const std::uint8_t* PeerRuntime::made_for(Sends::Send& send) {
  auto& memory = *running_.at(send.key).memory;
  const auto& executor = *exchange_->find(send.key)->executor;
  const auto& chunk_send = send.outgoing.send;
  send.temporary = slots_.take(send.outgoing.attempt, chunk_send.bytes);
  auto* to = slots_.data(send.temporary);
  if (chunk_send.scale_own)
    memory.scale_own(executor, chunk_send.chunk, to);
  else if (!memory.encode_own(executor, chunk_send.chunk, to)) {
    slots_.give(std::exchange(send.temporary, no_slot));
    not_finite(send.key, "tensor " + std::to_string(executor.layout().chunk(chunk_send.chunk).tensor));
    return nullptr;
  }
  return to;
}

// What cannot be quantized fails everywhere, with the name of who brought it.
void PeerRuntime::not_finite(const OpKey& key, const std::string& what) {
  session_->abandon(key, ErrorCode::non_finite,
                    "peer " + std::to_string(session_->peer()) + " has values in " + what + " of " +
                        describe(key) + " that are not finite and cannot be quantized",
                    monotonic_now());
}

// Where those who bring it are to be left out, nobody is left.
void PeerRuntime::none_finite(const OpKey& key) {
  std::string who;
  for (const auto peer : skipped_in(running_.at(key)))
    who += (who.empty() ? "" : ", ") + std::to_string(peer);
  session_->abandon(key, ErrorCode::non_finite,
                    "nobody is left to average in " + describe(key) + ": the values of each peer (" + who +
                        ") are not all finite",
                    monotonic_now());
}

std::vector<PeerId> PeerRuntime::skipped_in(const Running& running) {
  std::vector<PeerId> peers;
  if (running.ring.size() == 1) {
    if (running.memory->all_skipped()) peers = running.ring;
    return peers;
  }
  for (const auto position : running.memory->skipped())
    if (position < running.ring.size()) peers.push_back(running.ring[position]);
  return peers;
}

// Every result names them; the log does where they are not those of the operation before.
void PeerRuntime::report_skipped(const OpKey& key, const Running& running, OperationResult& result) {
  result.fed_back = running.memory->feedback();
  if (!running.may_skip) return;
  result.skipped = skipped_in(running);
  std::sort(result.skipped.begin(), result.skipped.end());
  for (const auto peer : result.skipped) {
    std::erase(result.outcome.contributors, peer);
    if (std::find(skipped_.begin(), skipped_.end(), peer) == skipped_.end())
      log("peer " + std::to_string(peer) + " was skipped in " + describe(key) +
          ": its values are not finite");
  }
  skipped_ = result.skipped;
}

// The executor may use what it was sent from.
void PeerRuntime::release(Sends::Send& send) {
  if (send.released || send.block) return;
  send.released = true;
  if (exchange_->sent(send.outgoing)) slots_.give(send.outgoing.send.slot);
}

void PeerRuntime::link_sent(PeerId peer, net::Connection& stripe, std::uint64_t token) {
  woken_.push_back(peer);  // there is room on the stripe, whatever has left it
  auto* send = token == Prober::token ? nullptr : sends_.find(token);
  if (token == Prober::token) {
    prober_.top_up();
  } else if (send == nullptr || send->peer != peer || send->stripe != &stripe) {
    // of an operation that is over
  } else if (send->block) {
    sends_.erase(token);
  } else {
    const auto& chunk_send = send->outgoing.send;
    const auto* attempt = exchange_->find(send->key);
    const bool in_slot = chunk_send.place == Place::slot && !send->released &&
                         !(attempt != nullptr && attempt->executor->in_output(chunk_send));
    if (!in_slot) release(*send);
    const auto held = in_slot || send->temporary != no_slot ? std::uint64_t{chunk_send.bytes} : 0;
    sends_.gone(token, stripe.payloads_out(), held);
  }
  drain();
}

void PeerRuntime::link_received(PeerId peer, net::Connection& stripe, std::uint64_t payloads) {
  sends_.received(&stripe, payloads, [this](Sends::Token, Sends::Send& send) {
    release(send);
    if (send.temporary != no_slot) slots_.give(send.temporary);
  });
  woken_.push_back(peer);
  drain();
}

void PeerRuntime::forget_in_flight(PeerId peer) {
  const auto give = [this](const Sends::Send& send) {
    if (send.temporary != no_slot) slots_.give(send.temporary);
  };
  forget_references(peer);
  sends_.erase_if([&](const auto& send) { return send.peer == peer; },
                  [&](Sends::Token, Sends::Send& send) { give(send); });
  if (const auto node = again_.extract(peer); !node.empty())
    for (const auto& send : node.mapped()) give(send);
}

// The caller's memory is neither read nor written by any frame of this operation from here on.
void PeerRuntime::stop_using(const OpKey& key) {
  sends_.erase_if([&](const auto& send) { return send.key == key; },
                  [&](Sends::Token token, Sends::Send& send) {
                    if (!send.gone) links_.detach(send.peer, token);
                    woken_.push_back(send.peer);  // there is room again for other operations
                    if (send.temporary != no_slot) slots_.give(send.temporary);
                  });
  for (auto& [peer, again] : again_) std::erase_if(again, [&](const auto& send) { return send.key == key; });
  std::erase_if(again_, [](const auto& entry) { return entry.second.empty(); });
  links_.each_stripe([&](PeerId, net::Connection& stripe) {
    const auto it = incoming_.find(&stripe);
    if (it == incoming_.end() || it->second.kind == Incoming::Kind::parked) return;
    if ((it->second.kind == Incoming::Kind::block ? it->second.block.key : it->second.header.key) != key)
      return;
    stripe.discard_incoming();
    incoming_.erase(it);
  });
  std::erase_if(fetches_, [&](const Fetch& fetch) { return fetch.request.key == key; });
  forget_references(key);
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
    to = prepare(*header, landing, incoming);
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
    exchange_->arrived(incoming.header, incoming.slot);
    gather(incoming.header);
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
  std::memcpy(prepare(header, landing, incoming), bytes.get(), header.bytes);
  exchange_->arrived(header, incoming.slot);
  gather(header);
}

// ---- the exchange's effects ----

void PeerRuntime::apply(exchange_effect::SendReady& e) { links_.send(e.to, std::move(e.ready)); }
void PeerRuntime::apply(exchange_effect::Wake& e) { woken_.push_back(e.peer); }
void PeerRuntime::apply(exchange_effect::Complete& e) {
  if (!exchange_->current(e.key, e.attempt)) return;
  const auto now = monotonic_now();
  if (const auto it = running_.find(e.key); it != running_.end()) it->second.held = now;
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
  Sends::Send send;
  send.peer = peer;
  send.stripe = stripe;
  send.block = true;
  send.key = request.key;
  stripe->send_payload(wire::FrameKind::block, {head, sizeof head}, data + request.offset, request.bytes,
                       sends_.add(std::move(send)));
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
  incoming.fetch = *it;
  incoming.fetch->sent = false;
  incoming_[&stripe] = std::move(incoming);
  auto* to = it->to;
  fetches_.erase(it);
  return {.to = to};
}

}  // namespace pccl
