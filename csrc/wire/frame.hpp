// Headers of what travels on a connection. Every frame starts with the same 12 bytes: body length (4), kind
// (1), zero (1), check of these six (2), CRC-32C (4). Control frame: the body is one message. Data frame: the
// body is a DataHeader and the bytes of one chunk. The CRC covers all but those bytes.
#pragma once
#include <optional>

#include "base/bytes.hpp"
#include "base/limits.hpp"
#include "wire/types.hpp"

namespace pccl::wire {

// Probe: a payload that its receiver drops, after a header that says nothing.
enum class FrameKind : std::uint8_t { message = 1, chunk = 2, block = 3, probe = 4 };

inline constexpr std::size_t frame_header_bytes = 12;
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
  bool checked = false;        // it carries a checksum
  std::uint32_t checksum = 0;  // CRC-32C of the bytes
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

// `checked`: what of the body the CRC covers, a message or the header of a payload.
void store(const FrameHeader& header, ByteView checked, std::uint8_t* to);
// Nothing: not a frame. `body_max` depends on what the connection has proved so far.
std::optional<FrameHeader> load_frame(const std::uint8_t* from, std::size_t body_max);
bool intact(const std::uint8_t* frame, ByteView checked);  // nothing of it has changed on its way
void store(const DataHeader& header, std::uint8_t* to);
std::optional<DataHeader> load_data(const std::uint8_t* from);
void store(const BlockHeader& header, std::uint8_t* to);
std::optional<BlockHeader> load_block(const std::uint8_t* from);

}  // namespace pccl::wire
