// Messages between two peers, on the stripes of their data link.
#pragma once
#include "wire/values.hpp"

namespace pccl {

enum class HelloKind : std::uint8_t {
  open = 1,  // the dialler's first message on every stripe
  taken,     // its answers: the stripe belongs to the link now,
  full,      //   no descriptor is left for it,
  unknown,   //   there is no such link
  more       // to the dialler, who opens stripes: there should be so many
};
template <> inline constexpr std::uint8_t last_of<HelloKind> = 5;

struct LinkHello {
  static constexpr MessageId id = MessageId::link_hello;
  HelloKind kind = HelloKind::open;
  std::uint64_t run = 0;
  PeerId from = no_peer, to = no_peer;
  std::uint64_t link = 0;  // drawn by the dialler: the stripes of one link carry the same number
  std::uint8_t stripe = 0, stripes = 1;
  std::uint32_t serial = 0;  // 0: a new link; else the stripe is opened for the n-th time
  bool checksum = false;     // the sender wants every chunk checked
  template <class V> void fields(V&& v) {
    v(kind), v(run), v(from), v(to), v(link), v(stripe), v(stripes), v(serial), v(checksum);
  }
};

struct StripeLost {  // on another stripe of the link: this end has closed that one
  static constexpr MessageId id = MessageId::stripe_lost;
  std::uint64_t link = 0;
  std::uint8_t stripe = 0;
  std::uint32_t serial = 0;
  template <class V> void fields(V&& v) { v(link), v(stripe), v(serial); }
};

struct Received {  // so many payloads have come whole on this stripe: they need not be sent again
  static constexpr MessageId id = MessageId::received;
  std::uint64_t payloads = 0;
  template <class V> void fields(V&& v) { v(payloads); }
};

struct Ready {  // "I have posted this operation: send"
  static constexpr MessageId id = MessageId::ready;
  ViewId view;
  OpKey key;
  Descriptor descriptor;
  template <class V> void fields(V&& v) { v(view), v(key), v(descriptor); }
};

// Shared state travels in blocks: a byte range of a tensor, or of its list of chunk hashes.
struct BlockRequest {
  static constexpr MessageId id = MessageId::block_request;
  OpKey key;
  ViewId view;
  std::uint32_t entry = 0;
  bool hashes = false;
  std::uint64_t offset = 0;
  std::uint32_t bytes = 0;
  bool as_bytes = false;  // on one host too, where it would be told by its place
  template <class V> void fields(V&& v) {
    v(key), v(view), v(entry), v(hashes), v(offset), v(bytes), v(as_bytes);
  }
};

struct BlockFailed {
  static constexpr MessageId id = MessageId::block_failed;
  OpKey key;
  ViewId view;
  std::uint32_t entry = 0;
  std::string why;
  template <class V> void fields(V&& v) { v(key), v(view), v(entry), v(why, limits::text_bytes_max); }
};

}  // namespace pccl
