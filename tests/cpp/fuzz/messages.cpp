// Messages of each direction: there is one encoding of a value, and it is what was decoded.
#include <algorithm>

#include "fuzz/target.hpp"
#include "generate.hpp"

namespace pccl::fuzz {
namespace {

template <class Variant> void decode_one(ByteView bytes) {
  const auto message = wire::decode<Variant>(bytes);
  if (!message) return;
  Bytes again;
  wire::encode(*message, again);
  HOLDS(std::ranges::equal(again, bytes));
}

template <class Variant> Bytes one(Rng& rng) {
  check::Generate generate(rng);
  Bytes bytes;
  wire::encode(generate.message<Variant>(), bytes);
  return bytes;
}

FUZZ_TARGET(to_master, decode_one<ToMaster>, one<ToMaster>);
FUZZ_TARGET(to_peer, decode_one<ToPeer>, one<ToPeer>);
FUZZ_TARGET(between_peers, decode_one<BetweenPeers>, one<BetweenPeers>);

}  // namespace
}  // namespace pccl::fuzz
