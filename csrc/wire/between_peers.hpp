// Messages between two peers, on the stripes of their data link.
#pragma once
#include "wire/values.hpp"

namespace pccl {

struct LinkHello {  // the first message of every stripe
  static constexpr MessageId id = MessageId::link_hello;
  std::uint64_t run = 0;
  PeerId from = no_peer, to = no_peer;
  std::uint64_t link = 0;  // drawn by the dialler: the stripes of one link carry the same number
  std::uint8_t stripe = 0, stripes = 1;
  template <class V> void fields(V&& v) { v(run), v(from), v(to), v(link), v(stripe), v(stripes); }
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
  template <class V> void fields(V&& v) { v(key), v(view), v(entry), v(hashes), v(offset), v(bytes); }
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
