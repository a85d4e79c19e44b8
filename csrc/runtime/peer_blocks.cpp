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
  const wire::BlockHeader header{request.view,   request.key,    request.entry,
                                 request.hashes, request.offset, request.bytes};
  if (!request.as_bytes && same_host_.may_read(peer, request.bytes)) {
    it->second->sent += request.bytes;
    links_.send(peer, BlockAt{header, reinterpret_cast<std::uintptr_t>(data + request.offset)});
    return;
  }
  auto* stripe = links_.stripe_for_block(peer);
  if (stripe == nullptr) return;
  it->second->sent += request.bytes;
  std::uint8_t head[wire::data_header_bytes];
  wire::store(header, head);
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

std::vector<PeerRuntime::Fetch>::iterator PeerRuntime::fetch_of(PeerId donor,
                                                                const wire::BlockHeader& block) {
  return std::find_if(fetches_.begin(), fetches_.end(), [&](const Fetch& f) {
    return f.donor == donor && f.request.key == block.key && f.request.view == block.view &&
           f.request.entry == block.entry && f.request.hashes == block.hashes &&
           f.request.offset == block.offset && f.request.bytes == block.bytes;
  });
}

net::Landing PeerRuntime::land_block(PeerId peer, net::Connection& stripe, ByteView head, std::size_t bytes) {
  const auto block = wire::load_block(head.data());
  if (!block || block->bytes != bytes) return {.close = true};
  const auto it = fetch_of(peer, *block);
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

// Where it cannot be read (any more), the donor is asked for the bytes, and says whether it still has them.
void PeerRuntime::take_block(PeerId donor, const BlockAt& block) {
  const auto it = fetch_of(donor, block.header);
  if (it == fetches_.end()) return;
  ChunkAt place;
  place.at = block.at;
  const auto source = same_host_.locate(donor, place);
  const auto* remote = std::get_if<SameHost::Remote>(&source);
  if (remote == nullptr ||
      !read_process_memory(remote->process, remote->address, it->to, block.header.bytes)) {
    it->request.as_bytes = true;
    it->sent = false;
    return send_fetches(donor);
  }
  fetches_.erase(it);
  if (const auto state = states_.find(block.header.key); state != states_.end())
    state->second->received += block.header.bytes;
  block_arrived(block.header);
}

void PeerRuntime::block_arrived(const wire::BlockHeader& block) {
  const auto state = states_.find(block.key);
  if (state == states_.end()) return;
  StateEvent event(StateEvent::Kind::block);
  event.entry = block.entry;
  event.hashes = block.hashes;
  event.offset = block.offset;
  event.bytes = block.bytes;
  state->second->events.push(std::move(event));
  session_->note_moved(block.key);
}

}  // namespace pccl
