#include "net/outbox.hpp"

#include <algorithm>
#include <utility>

namespace pccl::net {
namespace {

constexpr std::size_t frames_at_first = 16;
// A record keeps its buffer for the next message up to here; a rare huge message gives its memory back.
constexpr std::size_t buffer_kept_max = 64u << 10;

}  // namespace

void Outbox::grow() {
  std::vector<Frame> larger(std::max(frames_at_first, ring_.size() * 2));
  for (std::size_t i = 0; i < count_; ++i) larger[i] = std::move(at(i));
  ring_ = std::move(larger);
  first_ = 0;
}

Outbox::Frame& Outbox::push(wire::FrameKind kind, ByteView checked, std::size_t body_bytes) {
  if (count_ == ring_.size()) grow();
  Frame& frame = at(count_++);
  wire::store({static_cast<std::uint32_t>(body_bytes), kind}, checked, frame.head.data());
  bytes_ += wire::frame_header_bytes + body_bytes;
  return frame;
}

void Outbox::push_message(ByteView body) {
  Frame& frame = push(wire::FrameKind::message, body, body.size());
  const bool fits = body.size() <= wire::data_header_bytes;  // small ones travel in the head itself
  if (fits) std::ranges::copy(body, frame.head.begin() + wire::frame_header_bytes);
  frame.head_bytes = static_cast<std::uint8_t>(wire::frame_header_bytes + (fits ? body.size() : 0));
  frame.payload_bytes = fits ? 0 : body.size();
  frame.borrowed = false;
  frame.owned_from = 0;
  if (!fits) frame.owned.assign(body.begin(), body.end());
}

void Outbox::push_payload(wire::FrameKind kind, ByteView head, const void* payload, std::size_t bytes,
                          std::uint64_t token) {
  Frame& frame = push(kind, head, head.size() + bytes);
  std::ranges::copy(head, frame.head.begin() + wire::frame_header_bytes);
  frame.head_bytes = static_cast<std::uint8_t>(wire::frame_header_bytes + head.size());
  frame.payload = static_cast<const std::uint8_t*>(payload);
  frame.payload_bytes = bytes;
  frame.token = token;
  frame.borrowed = true;
  ++borrowed_frames_;
  borrowed_bytes_ += frame.size();
}

int Outbox::gather(iovec* parts, int count_max, std::size_t bytes_max) const {
  int count = 0;
  std::size_t skip = front_sent_;
  const auto add = [&](const std::uint8_t* from, std::size_t bytes) {
    bytes = std::min(bytes, bytes_max);
    bytes_max -= bytes;
    if (bytes != 0) parts[count++] = {const_cast<std::uint8_t*>(from), bytes};
  };
  for (std::size_t i = 0; i < count_ && count + 2 <= count_max && bytes_max != 0; ++i) {
    const Frame& frame = at(i);
    const auto of_head = std::min<std::size_t>(skip, frame.head_bytes);
    const auto of_payload = std::min(skip - of_head, frame.payload_bytes);
    skip -= of_head + of_payload;
    add(frame.head.data() + of_head, frame.head_bytes - of_head);
    if (of_payload < frame.payload_bytes) add(frame.payload_at(of_payload), frame.payload_bytes - of_payload);
  }
  return count;
}

void Outbox::advance(std::size_t bytes) {
  front_sent_ += bytes;
  bytes_ -= bytes;
}

std::optional<Outbox::Gone> Outbox::pop_sent() {
  if (count_ == 0 || front_sent_ < at(0).size()) return std::nullopt;
  Frame& frame = at(0);
  const bool payload = frame.head[4] != static_cast<std::uint8_t>(wire::FrameKind::message);
  const Gone gone{frame.borrowed, payload, frame.token};
  front_sent_ -= frame.size();
  recycle(frame);
  first_ = (first_ + 1) & (ring_.size() - 1);
  --count_;
  return gone;
}

void Outbox::give_back(Frame& frame) {
  if (!std::exchange(frame.borrowed, false)) return;
  --borrowed_frames_;
  borrowed_bytes_ -= frame.size();
}

void Outbox::recycle(Frame& frame) {
  give_back(frame);
  if (frame.owned.capacity() > buffer_kept_max) frame.owned = Bytes();
  frame.owned.clear();
  frame.payload = nullptr;
}

void Outbox::detach(std::uint64_t token) {
  std::size_t kept = 0, sent = front_sent_;
  for (std::size_t i = 0; i < count_; ++i) {
    Frame& frame = at(i);
    const auto size = frame.size();
    const auto gone = std::min(sent, size);
    sent -= gone;
    if (frame.borrowed && frame.token == token) {
      if (gone == 0) {
        bytes_ -= size;
        recycle(frame);
        continue;
      }
      frame.owned_from = std::max<std::size_t>(gone, frame.head_bytes) - frame.head_bytes;
      if (frame.owned_from < frame.payload_bytes)
        frame.owned.assign(frame.payload + frame.owned_from, frame.payload + frame.payload_bytes);
      give_back(frame);
    }
    if (kept != i) std::swap(at(kept), frame);
    ++kept;
  }
  count_ = kept;
}

void Outbox::clear() {
  for (std::size_t i = 0; i < count_; ++i) recycle(at(i));
  count_ = front_sent_ = 0;
  bytes_ = 0;
}

}  // namespace pccl::net
