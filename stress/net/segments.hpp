// What a network card does for the kernel: cutting what it hands over in one go into packets, and joining
// those that come one right after the other. The network between sees packets alone. Pure memory.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace wan {

// What the kernel writes before each packet of such a device (struct virtio_net_hdr, host byte order).
struct CardHeader {
  std::uint8_t flags = 0, kind = 0;
  std::uint16_t header_bytes = 0, segment_bytes = 0, checksum_start = 0, checksum_offset = 0;
};
static_assert(sizeof(CardHeader) == 10);

inline constexpr std::uint8_t card_completes_checksum = 1, card_cuts_tcp = 1;  // flags, kind
inline constexpr std::size_t handed_over_max = (1u << 16) + sizeof(CardHeader);

// A TCP packet over IPv4 that the card is to complete.
struct TcpPacket {
  std::uint16_t ip_header_bytes = 0, header_bytes = 0;  // of IP; of both
};
std::optional<TcpPacket> tcp_packet(const char* packet, std::size_t bytes);

// Packet `number` of those that `whole` is cut into, `segment_bytes` of payload each; returns its length.
// `to` has room for the headers and a segment. Nothing: there is none.
std::optional<std::size_t> cut(const char* whole, std::size_t bytes, const TcpPacket& shape,
                               std::size_t segment_bytes, std::size_t number, char* to);

// Makes `first`, the headers of the first packet, those of a packet with so much payload. `last`: the last
// one that is joined to it, whose flags it takes.
void join(char* first, const TcpPacket& shape, std::size_t payload_bytes, const char* last);

}  // namespace wan
