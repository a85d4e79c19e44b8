// Frames on their way out of one connection: a ring of records that are used again, so that nothing is
// allocated per frame once it has grown. Pure memory: it hands out what to write next and is told how much
// went.
#pragma once
#include <sys/uio.h>

#include <array>
#include <optional>
#include <vector>

#include "base/bytes.hpp"
#include "wire/frame.hpp"

namespace pccl::net {

class Outbox {
 public:
  void push_message(ByteView body);  // copied
  // The payload is borrowed until pop_sent() names its token, detach(token), or clear().
  void push_payload(wire::FrameKind kind, ByteView head, const void* payload, std::size_t bytes,
                    std::uint64_t token);

  // The next bytes to write, at most `bytes_max` of them in at most `count_max` parts; returns the number of
  // parts.
  int gather(iovec* parts, int count_max, std::size_t bytes_max) const;
  void advance(std::size_t bytes);
  // Drops the oldest frame if it has gone completely.
  struct Gone {
    bool borrowed = false;  // still: it was not detached
    bool payload = false;
    std::uint64_t token = 0;
  };
  std::optional<Gone> pop_sent();

  // The memory behind `token` is not read again: its frames that have not started are dropped, and of one
  // that has, the unsent rest is copied, because the other side has been promised it.
  void detach(std::uint64_t token);
  void clear();

  bool empty() const { return count_ == 0; }
  std::size_t frames() const { return count_; }
  std::uint64_t bytes() const { return bytes_; }  // headers included, unsent
  // Of these, what pop_sent() will name: whole frames, until it does. Messages leave in silence.
  std::size_t borrowed_frames() const { return borrowed_frames_; }
  std::uint64_t borrowed_bytes() const { return borrowed_bytes_; }

 private:
  struct Frame {
    std::array<std::uint8_t, wire::frame_header_bytes + wire::data_header_bytes> head;
    std::uint8_t head_bytes = 0;
    bool borrowed = false;
    const std::uint8_t* payload = nullptr;  // of a borrowed frame
    std::size_t payload_bytes = 0;
    std::uint64_t token = 0;
    Bytes owned;  // of any other: its payload from byte `owned_from` on
    std::size_t owned_from = 0;

    std::size_t size() const { return head_bytes + payload_bytes; }
    const std::uint8_t* payload_at(std::size_t offset) const {
      return borrowed ? payload + offset : owned.data() + (offset - owned_from);
    }
  };

  Frame& at(std::size_t index) { return ring_[(first_ + index) & (ring_.size() - 1)]; }
  const Frame& at(std::size_t index) const { return ring_[(first_ + index) & (ring_.size() - 1)]; }
  Frame& push(wire::FrameKind kind, ByteView checked, std::size_t body_bytes);
  void grow();
  void give_back(Frame& frame);
  void recycle(Frame& frame);

  std::vector<Frame> ring_;  // a power of two long
  std::size_t first_ = 0, count_ = 0;
  std::size_t front_sent_ = 0;  // bytes gone, counted from the start of the oldest frame; may reach beyond it
  std::uint64_t bytes_ = 0;
  std::size_t borrowed_frames_ = 0;
  std::uint64_t borrowed_bytes_ = 0;
};

}  // namespace pccl::net
