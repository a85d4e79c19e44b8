// A peer's data path outwards: which chunk leaves next, from where, and who may use that memory again when.
// On the I/O thread.
#include <algorithm>

#include "base/crc32c.hpp"
#include "runtime/peer_runtime.hpp"

namespace pccl {

// What is held until it is known to have come is bounded, per stripe.
bool PeerRuntime::may_take(const net::Connection& stripe) const {
  return sends_.held(&stripe) < limits::held_bytes_max;
}

// No stripe takes more, and there is more: the link is what is waited for.
void PeerRuntime::note_full(PeerId peer) {
  const auto now = monotonic_now();
  if (recorder_.on() && exchange_->sendable(peer)) full_[peer].full(now);
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
    if (same_host_.ways(peer) != 0 && !may_offer(peer)) {  // it reads what it was offered: no link is full
      if (auto& full = full_[peer]; recorder_.on() && !full.is_full() && exchange_->sendable(peer))
        full.full(monotonic_now());
      return;
    }
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
  note_sent(peer, send.key, bytes);
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
void PeerRuntime::not_finite(const OpKey& key, const std::string& what, bool own) {
  session_->abandon(
      key, ErrorCode::non_finite,
      "peer " + std::to_string(session_->peer()) + " has values in " + what + " of " + describe(key) +
          " that are not finite and cannot be quantized" +
          (own ? "; with QuantConfig(non_finite=\"skip\") an average leaves that peer out" : ""),
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

}  // namespace pccl
