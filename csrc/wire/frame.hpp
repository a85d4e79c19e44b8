// Headers of what travels on a connection. Every frame starts with the same 8 bytes: body length, kind,
// flags. Control frame: the body is one message. Data frame: the body is a DataHeader and the bytes of one
// chunk.
#pragma once
#include <optional>

#include "base/bytes.hpp"
#include "base/limits.hpp"
#include "wire/types.hpp"

namespace pccl::wire {

enum class FrameKind : std::uint8_t { message = 1, chunk = 2, block = 3 };

inline constexpr std::size_t frame_header_bytes = 8;
struct FrameHeader {
  std::uint32_t body_bytes = 0;
  FrameKind kind = FrameKind::message;
};

// A chunk on its way: (view, key) is the attempt, without the two peers of a pair, which the link knows;
// `step` is the receiver's step of the plan.
inline constexpr std::size_t data_header_bytes = 48;
struct DataHeader {
  ViewId view;
  OpKey key;
  std::uint32_t fingerprint = 0;  // of the sender's descriptor
  std::uint16_t step = 0;
  std::uint16_t attempt = 0;  // resends of a chunk within one view (a mended stripe)
  std::uint32_t chunk = 0;
  std::uint32_t bytes = 0;
  std::uint32_t checksum = 0;  // 0: none (a transport that checks by itself)
  bool operator==(const DataHeader&) const = default;
};

// A block of shared state on its way: bytes of one entry, or of its list of chunk hashes. As long as a
// DataHeader.
struct BlockHeader {
  ViewId view;
  OpKey key;
  std::uint32_t entry = 0;
  bool hashes = false;
  std::uint64_t offset = 0;
  std::uint32_t bytes = 0;
  bool operator==(const BlockHeader&) const = default;
};

void store(const FrameHeader& header, std::uint8_t* to);
// Nothing: not a frame. `body_max` depends on what the connection has proved so far.
std::optional<FrameHeader> load_frame(const std::uint8_t* from, std::size_t body_max);
void store(const DataHeader& header, std::uint8_t* to);
std::optional<DataHeader> load_data(const std::uint8_t* from);
void store(const BlockHeader& header, std::uint8_t* to);
std::optional<BlockHeader> load_block(const std::uint8_t* from);

}  // namespace pccl::wire
