#include "fuzz/mutate.hpp"

#include <algorithm>

namespace pccl::fuzz {
namespace {

using Words = std::vector<std::uint64_t>;

std::ptrdiff_t place(const Bytes& bytes, Rng& rng) { return std::ptrdiff_t(rng.below(bytes.size())); }

// Where lengths and counts go wrong.
std::uint64_t interesting(const Words& words, Rng& rng) {
  constexpr std::uint64_t known[] = {0,    1,      2,      0x7f,       0x80,
                                     0xff, 0x7fff, 0xffff, 0x7fffffff, ~std::uint64_t{0}};
  if (!words.empty() && rng.chance(0.5)) return words[rng.below(words.size())];
  if (rng.chance(0.5)) return known[rng.below(std::size(known))];
  return std::uint64_t{1} << rng.below(64);
}

void overwrite(Bytes& bytes, std::uint64_t value, Rng& rng) {
  std::uint8_t raw[8];
  store_little(raw, value + rng.below(3) - 1);
  const auto at = std::size_t(place(bytes, rng));
  const auto width = std::min<std::size_t>(std::size_t{1} << rng.below(4), bytes.size() - at);
  std::copy_n(raw, width, bytes.begin() + std::ptrdiff_t(at));
}

void insert_part(Bytes& bytes, ByteView from, Rng& rng) {
  if (from.empty()) return;
  const auto begin = rng.below(from.size());
  const auto size = 1 + rng.below(std::min<std::size_t>(from.size() - begin, 64));
  const Bytes part(from.begin() + std::ptrdiff_t(begin), from.begin() + std::ptrdiff_t(begin + size));
  const auto at = bytes.empty() ? 0 : place(bytes, rng);
  bytes.insert(bytes.begin() + at, part.begin(), part.end());
}

void change(Bytes& bytes, ByteView other, const Words& words, Rng& rng) {
  if (bytes.empty()) return insert_part(bytes, other, rng);
  switch (rng.below(9)) {
    case 0:
      bytes[std::size_t(place(bytes, rng))] ^= std::uint8_t(1u << rng.below(8));
      break;
    case 1:
      bytes[std::size_t(place(bytes, rng))] = std::uint8_t(rng.next());
      break;
    case 2:
      bytes[std::size_t(place(bytes, rng))] += std::uint8_t(rng.below(9) - 4);
      break;
    case 3:
    case 4:
      overwrite(bytes, interesting(words, rng), rng);
      break;
    case 5: {
      const auto at = place(bytes, rng);
      const auto size =
          1 + std::ptrdiff_t(rng.below(std::min<std::size_t>(bytes.size() - std::size_t(at), 64)));
      bytes.erase(bytes.begin() + at, bytes.begin() + at + size);
      break;
    }
    case 6:
      insert_part(bytes, Bytes(bytes), rng);
      break;
    case 7:
      insert_part(bytes, other, rng);
      break;
    default:
      bytes.resize(rng.below(bytes.size() + 1));
  }
}

}  // namespace

Bytes mutate(Bytes bytes, ByteView other, const Words& words, Rng& rng) {
  const auto changes = 1 + rng.below(1 + rng.below(8));
  for (std::uint64_t i = 0; i < changes; ++i) change(bytes, other, words, rng);
  if (bytes.size() > input_bytes_max) bytes.resize(input_bytes_max);
  return bytes;
}

}  // namespace pccl::fuzz
