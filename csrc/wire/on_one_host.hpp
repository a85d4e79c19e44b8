// Messages between two peers of one host: whether they can read each other's memory, and chunks that travel
// as a place to be read from instead of as bytes. All on the first stripe of their link, in order.
#pragma once
#include "wire/frame.hpp"
#include "wire/values.hpp"

namespace pccl {

// Ways to take a chunk without the network, as bits of a set.
using LocalWays = std::uint8_t;
inline constexpr LocalWays read_process = 1;  // process_vm_readv
inline constexpr LocalWays map_segment = 2;   // the sender's shared memory, mapped

// "This is where I am; try to read my token." Sent by both ends when a link is up.
struct HostHello {
  static constexpr MessageId id = MessageId::host_hello;
  std::string host;  // the same on all peers of one host
  std::uint32_t process = 0;
  Digest token{};
  std::uint64_t token_at = 0;  // its address in that process
  std::uint32_t door = 0;      // descriptor there of a segment that begins with the token
  LocalWays ways = 0;          // in which the sender lets itself be read
  template <class V> void fields(V&& v) {
    v(host, limits::name_bytes_max), v(process), v(token), v(token_at), v(door), v(ways);
  }
};

struct HostAnswer {  // "I can take your chunks in these ways"
  static constexpr MessageId id = MessageId::host_answer;
  LocalWays ways = 0;
  template <class V> void fields(V&& v) { v(ways); }
};

// A segment of the sender's shared memory, before the first chunk in it.
struct SegmentAt {
  static constexpr MessageId id = MessageId::segment_at;
  std::uint32_t segment = 0;
  std::uint32_t descriptor = 0;
  std::uint64_t bytes = 0;
  bool operator==(const SegmentAt&) const = default;
  template <class V> void fields(V&& v) { v(segment), v(descriptor), v(bytes); }
};

struct SegmentGone {
  static constexpr MessageId id = MessageId::segment_gone;
  std::uint32_t segment = 0;
  template <class V> void fields(V&& v) { v(segment); }
};

// A chunk, by the place where its bytes lie until they are taken.
struct ChunkAt {
  static constexpr MessageId id = MessageId::chunk_at;
  wire::DataHeader header;
  std::uint64_t number = 0;   // the sender's, told back when it has been taken
  std::uint32_t segment = 0;  // 0: the sender's private memory
  std::uint64_t at = 0;       // offset in the segment, or address
  template <class V> void fields(V&& v) {
    v(header.view), v(header.key), v(header.fingerprint), v(header.step), v(header.attempt), v(header.chunk),
        v(header.bytes), v(number), v(segment), v(at);
  }
};

// Chunks that have been read, and others that could not be: those are to be sent as bytes. `failing`: ways in
// which nothing is to be offered from now on.
struct ChunksTaken {
  static constexpr MessageId id = MessageId::chunks_taken;
  std::vector<std::uint64_t> taken, wanted;
  LocalWays failing = 0;
  template <class V> void fields(V&& v) {
    v(taken, limits::references_max), v(wanted, limits::references_max), v(failing);
  }
};

// A block of shared state that was asked for, by the place where it lies until the synchronization has ended.
// Nobody tells that it was read: its digest shows whether it was in time.
struct BlockAt {
  static constexpr MessageId id = MessageId::block_at;
  wire::BlockHeader header;
  std::uint64_t at = 0;  // address in the sender's private memory
  template <class V> void fields(V&& v) {
    v(header.key), v(header.view), v(header.entry), v(header.hashes), v(header.offset), v(header.bytes),
        v(at);
  }
};

}  // namespace pccl
