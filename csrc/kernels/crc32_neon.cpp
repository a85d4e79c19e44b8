// CRC-32 by ARMv8's instructions. Run only after the CPU has been asked.
#if defined(__aarch64__)

#include <arm_acle.h>

#include "kernels/crc32_tail.hpp"

#define PCCL_CRC32 __attribute__((target("+crc")))

namespace pccl::kernels {
namespace {

// An instruction takes three cycles and one can begin in each: three lanes at once, put together afterwards.
constexpr std::size_t lane_bytes = 1024;

template <Crc32Polynomial polynomial> struct ByInstructions {
  static constexpr std::uint32_t one_lane = crc32_math::power_of_x(polynomial, 8 * lane_bytes);
  static constexpr std::uint32_t two_lanes = crc32_math::power_of_x(polynomial, 16 * lane_bytes);

  PCCL_CRC32 static std::uint32_t word(std::uint32_t state, std::uint64_t value) {
    if constexpr (polynomial == Crc32Polynomial::ieee) return __crc32d(state, value);
    return __crc32cd(state, value);
  }
  PCCL_CRC32 static std::uint32_t byte(std::uint32_t state, std::uint8_t value) {
    if constexpr (polynomial == Crc32Polynomial::ieee) return __crc32b(state, value);
    return __crc32cb(state, value);
  }

  PCCL_CRC32 static std::uint32_t update(std::uint32_t state, const std::byte* at, std::size_t bytes) {
    for (; bytes >= 3 * lane_bytes; at += 3 * lane_bytes, bytes -= 3 * lane_bytes) {
      std::uint32_t a = state, b = 0, c = 0;
      for (std::size_t i = 0; i < lane_bytes; i += 8) {
        a = word(a, little_word(at + i));
        b = word(b, little_word(at + lane_bytes + i));
        c = word(c, little_word(at + 2 * lane_bytes + i));
      }
      state =
          crc32_math::product(polynomial, two_lanes, a) ^ crc32_math::product(polynomial, one_lane, b) ^ c;
    }
    for (; bytes >= 8; at += 8, bytes -= 8) state = word(state, little_word(at));
    for (; bytes > 0; ++at, --bytes) state = byte(state, std::to_integer<std::uint8_t>(*at));
    return state;
  }

  static std::uint32_t copy(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t bytes) {
    return copy_in_pieces(state, to, from, bytes, update);
  }
  static constexpr auto stream = copy;
};

}  // namespace

const Crc32Table& armv8_crc32(Crc32Polynomial polynomial) {
  return table_of<ByInstructions, Crc32Level::armv8>(polynomial);
}

}  // namespace pccl::kernels

#endif
