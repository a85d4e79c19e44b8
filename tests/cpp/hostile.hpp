// Valid messages that no honest peer or master would send, in any order and from anybody: whoever hears them
// goes on, within bounds. What the tests of that share; Court has a master hear them, Household a peer.
#pragma once
#include <string>

#include "allocated.hpp"
#include "check.hpp"
#include "generate.hpp"

namespace pccl::hostile {

using check::allocated_bytes;
using check::Generate;

inline constexpr std::size_t mebibyte = 1u << 20;

// What is said in answer is itself a valid message.
template <class Variant, class M> void check_encodes(const M& message) {
  Bytes bytes;
  wire::encode(message, bytes);
  CHECK(bytes.size() <= limits::message_bytes_max);
  CHECK(wire::decode<Variant>(bytes).has_value());
}

inline Join join_of(const std::string& island, std::uint32_t group = 0) {
  Join join;
  join.island = island;
  join.group = group;
  join.reachable_at = {{"127.0.0.1", 1}};
  return join;
}

// Names that exist, so that random messages mean something.
inline void know(Generate& generate, Rng& rng, const View& view) {
  generate.views = {view.id, {view.id.incarnation, view.id.number + 1}, {view.id.incarnation + 1, 0}};
  generate.numbers = {0,
                      1,
                      2,
                      3,
                      ~std::uint64_t{0},
                      view.boundaries,
                      view.boundaries + 1u,
                      view.id.number,
                      view.id.incarnation};
  for (const auto& member : view.members) generate.numbers.push_back(member.peer);
  generate.keys.clear();
  for (int i = 0; i < 6; ++i)
    generate.keys.push_back({static_cast<Scope>(1 + rng.below(2)),
                             std::uint32_t(rng.below(2)),
                             {view.boundaries, std::uint32_t(rng.below(2)), std::uint32_t(rng.below(3))}});
}
}  // namespace pccl::hostile
