#include "segments.hpp"

#include <algorithm>
#include <cstring>

namespace wan {
namespace {

constexpr std::size_t ip_header_least = 20, tcp_header_least = 20;
constexpr std::size_t length_at = 2, number_at = 4, protocol_at = 9, ip_checksum_at = 10, addresses_at = 12;
constexpr std::size_t sequence_at = 4, offset_at = 12, flags_at = 13, tcp_checksum_at = 16;
constexpr char tcp = 6;
constexpr unsigned char fin = 0x01, push = 0x08, reduced = 0x80;

std::uint32_t load(const char* from, std::size_t bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i) value = value << 8 | static_cast<unsigned char>(from[i]);
  return value;
}
void store(std::uint32_t value, char* to, std::size_t bytes) {
  for (std::size_t i = bytes; i-- > 0; value >>= 8) to[i] = static_cast<char>(value & 0xff);
}

std::uint32_t sum(const char* from, std::size_t bytes) {
  std::uint32_t total = 0;
  for (std::size_t i = 0; i + 1 < bytes; i += 2) total += load(from + i, 2);
  return total;
}
std::uint32_t folded(std::uint32_t total) {
  while (total >> 16 != 0) total = (total & 0xffff) + (total >> 16);
  return total;
}

// Lengths and checksums for so many bytes of payload; of TCP's, the part that the card completes.
void finish(char* packet, const TcpPacket& shape, std::size_t payload_bytes) {
  const auto bytes = static_cast<std::uint32_t>(shape.header_bytes + payload_bytes);
  store(bytes, packet + length_at, 2);
  store(0, packet + ip_checksum_at, 2);
  store(~folded(sum(packet, shape.ip_header_bytes)) & 0xffff, packet + ip_checksum_at, 2);
  const std::uint32_t pseudo = sum(packet + addresses_at, 8) + tcp + (bytes - shape.ip_header_bytes);
  store(folded(pseudo), packet + shape.ip_header_bytes + tcp_checksum_at, 2);
}

}  // namespace

std::optional<TcpPacket> tcp_packet(const char* packet, std::size_t bytes) {
  if (bytes < ip_header_least + tcp_header_least || packet[0] >> 4 != 4 || packet[protocol_at] != tcp)
    return std::nullopt;
  TcpPacket shape;
  shape.ip_header_bytes = static_cast<std::uint16_t>((packet[0] & 0x0f) * 4);
  if (shape.ip_header_bytes < ip_header_least || shape.ip_header_bytes + tcp_header_least > bytes)
    return std::nullopt;
  const auto of_tcp = (load(packet + shape.ip_header_bytes + offset_at, 1) >> 4) * 4;
  shape.header_bytes = static_cast<std::uint16_t>(shape.ip_header_bytes + of_tcp);
  if (of_tcp < tcp_header_least || shape.header_bytes > bytes) return std::nullopt;
  return shape;
}

std::optional<std::size_t> cut(const char* whole, std::size_t bytes, const TcpPacket& shape,
                               std::size_t segment_bytes, std::size_t number, char* to) {
  const std::size_t from = shape.header_bytes + number * segment_bytes;
  if (segment_bytes == 0 || from >= bytes) return std::nullopt;
  const std::size_t payload = std::min(segment_bytes, bytes - from);
  std::memcpy(to, whole, shape.header_bytes);
  std::memcpy(to + shape.header_bytes, whole + from, payload);
  char* header = to + shape.ip_header_bytes;
  const auto offset = static_cast<std::uint32_t>(number * segment_bytes);
  store(load(to + number_at, 2) + static_cast<std::uint32_t>(number), to + number_at, 2);
  store(load(header + sequence_at, 4) + offset, header + sequence_at, 4);
  auto flags = static_cast<unsigned char>(header[flags_at]);
  if (from + payload < bytes) flags = static_cast<unsigned char>(flags & ~(fin | push));
  if (number > 0) flags = static_cast<unsigned char>(flags & ~reduced);
  header[flags_at] = static_cast<char>(flags);
  finish(to, shape, payload);
  return shape.header_bytes + payload;
}

void join(char* first, const TcpPacket& shape, std::size_t payload_bytes, const char* last) {
  const char ends = static_cast<char>(last[shape.ip_header_bytes + flags_at] & (fin | push));
  first[shape.ip_header_bytes + flags_at] = static_cast<char>(first[shape.ip_header_bytes + flags_at] | ends);
  finish(first, shape, payload_bytes);
}

}  // namespace wan
