#include "wire/frame.hpp"

#include "base/crc32c.hpp"

namespace pccl {

std::string describe(const Tag& tag) {
  const auto use = std::to_string(tag.count) +
                   (tag.boundary != 0 ? " since boundary " + std::to_string(tag.boundary) : "");
  return tag.name == 0 ? "call " + use : "tag " + std::to_string(tag.name - 1) + " (use " + use + ")";
}

std::string describe(const OpKey& key) {
  if (key.scope == Scope::run) return describe(key.tag) + " of the run";
  if (key.scope == Scope::pair)
    return describe(key.tag) + " from peer " + std::to_string(key.from) + " to peer " +
           std::to_string(key.to);
  return describe(key.tag) + " of group " + std::to_string(key.group);
}

namespace wire {

namespace {

constexpr std::size_t length_and_kind = 6, crc_at = 8;

// A changed length would be waited for: it is seen before the rest of the frame has come.
std::uint16_t check_of(const std::uint8_t* frame) {
  return static_cast<std::uint16_t>(crc32c({frame, length_and_kind}));
}

std::uint32_t crc_of(const std::uint8_t* frame, ByteView checked) {
  return crc32c(checked, crc32c({frame, crc_at}));
}

}  // namespace

void store(const FrameHeader& header, ByteView checked, std::uint8_t* to) {
  store_little(to, header.body_bytes);
  to[4] = static_cast<std::uint8_t>(header.kind);
  to[5] = 0;
  store_little(to + length_and_kind, check_of(to));
  store_little(to + crc_at, crc_of(to, checked));
}

std::optional<FrameHeader> load_frame(const std::uint8_t* from, std::size_t body_max) {
  FrameHeader header;
  header.body_bytes = load_little<std::uint32_t>(from);
  if (header.body_bytes > body_max || from[4] < 1 || from[4] > 4 || from[5] != 0) return std::nullopt;
  if (load_little<std::uint16_t>(from + length_and_kind) != check_of(from)) return std::nullopt;
  header.kind = static_cast<FrameKind>(from[4]);
  return header;
}

bool intact(const std::uint8_t* frame, ByteView checked) {
  return load_little<std::uint32_t>(frame + crc_at) == crc_of(frame, checked);
}

namespace {

// Both headers of 48 bytes begin with the attempt: bytes 0..8 and 12..27; 9 to 11 are the header's own.
void store_attempt(const ViewId& view, const OpKey& key, std::uint8_t* to) {
  store_little(to, view.incarnation);
  store_little(to + 4, view.number);
  to[8] = static_cast<std::uint8_t>(key.scope);
  store_little(to + 12, key.group);
  store_little(to + 16, key.tag.boundary);
  store_little(to + 20, key.tag.name);
  store_little(to + 24, key.tag.count);
}

bool load_attempt(const std::uint8_t* from, ViewId& view, OpKey& key) {
  if (from[8] < 1 || from[8] > last_of<Scope>) return false;
  view = {load_little<std::uint32_t>(from), load_little<std::uint32_t>(from + 4)};
  key.scope = static_cast<Scope>(from[8]);
  key.group = load_little<std::uint32_t>(from + 12);
  key.tag = {load_little<std::uint32_t>(from + 16), load_little<std::uint32_t>(from + 20),
             load_little<std::uint32_t>(from + 24)};
  return true;
}

}  // namespace

void store(const DataHeader& header, std::uint8_t* to) {
  store_attempt(header.view, header.key, to);
  to[9] = 0;
  store_little(to + 10, header.step);
  store_little(to + 28, header.fingerprint);
  store_little(to + 32, header.chunk);
  store_little(to + 36, header.bytes);
  store_little(to + 40, header.checksum);
  store_little(to + 44, header.attempt);
  to[46] = header.checked ? 1 : 0;
  to[47] = 0;
}

std::optional<DataHeader> load_data(const std::uint8_t* from) {
  DataHeader header;
  if (!load_attempt(from, header.view, header.key) || from[9] != 0 || from[46] > 1 || from[47] != 0)
    return std::nullopt;
  header.step = load_little<std::uint16_t>(from + 10);
  header.fingerprint = load_little<std::uint32_t>(from + 28);
  header.chunk = load_little<std::uint32_t>(from + 32);
  header.bytes = load_little<std::uint32_t>(from + 36);
  header.checksum = load_little<std::uint32_t>(from + 40);
  header.attempt = load_little<std::uint16_t>(from + 44);
  header.checked = from[46] == 1;
  if (header.bytes > limits::chunk_bytes_max) return std::nullopt;
  return header;
}

void store(const BlockHeader& header, std::uint8_t* to) {
  store_attempt(header.view, header.key, to);
  to[9] = header.hashes ? 1 : 0;
  to[10] = to[11] = 0;
  store_little(to + 28, header.entry);
  store_little(to + 32, header.offset);
  store_little(to + 40, header.bytes);
  store_little<std::uint32_t>(to + 44, 0);
}

std::optional<BlockHeader> load_block(const std::uint8_t* from) {
  BlockHeader header;
  if (!load_attempt(from, header.view, header.key) || from[9] > 1 || from[10] != 0 || from[11] != 0)
    return std::nullopt;
  header.hashes = from[9] == 1;
  header.entry = load_little<std::uint32_t>(from + 28);
  header.offset = load_little<std::uint64_t>(from + 32);
  header.bytes = load_little<std::uint32_t>(from + 40);
  if (header.bytes > limits::chunk_bytes_max || load_little<std::uint32_t>(from + 44) != 0)
    return std::nullopt;
  return header;
}

}  // namespace wire
}  // namespace pccl
