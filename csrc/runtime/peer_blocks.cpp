// Blocks of shared state: asked for, served from a donor's memory, landed in place. On the I/O thread.
#include <algorithm>

#include "runtime/peer_runtime.hpp"

namespace pccl {

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
