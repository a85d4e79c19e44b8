#include "base/crc32c.hpp"

#include <array>
#include <cstring>

#if defined(__aarch64__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace pccl {
namespace {

constexpr std::uint32_t polynomial = 0x82f63b78;  // reflected

// tables[k][b]: byte b, followed by k zero bytes.
using Tables = std::array<std::array<std::uint32_t, 256>, 8>;
constexpr Tables make_tables() {
  Tables tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    auto crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? polynomial : 0);
    tables[0][byte] = crc;
  }
  for (std::size_t k = 1; k < tables.size(); ++k)
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const auto crc = tables[k - 1][byte];
      tables[k][byte] = (crc >> 8) ^ tables[0][crc & 255];
    }
  return tables;
}
constexpr Tables tables = make_tables();

// The state of a CRC after so many zero bytes is linear in its bits: four lookups.
constexpr std::size_t lane_bytes = 1024;
using Shift = std::array<std::array<std::uint32_t, 256>, 4>;
constexpr std::uint32_t after_zeros(std::uint32_t crc, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) crc = (crc >> 8) ^ tables[0][crc & 255];
  return crc;
}
Shift make_shift(std::size_t bytes) {
  std::array<std::uint32_t, 32> bits{};
  for (std::size_t bit = 0; bit < 32; ++bit) bits[bit] = after_zeros(std::uint32_t{1} << bit, bytes);
  Shift shift{};
  for (std::size_t part = 0; part < 4; ++part)
    for (std::size_t byte = 0; byte < 256; ++byte)
      for (std::size_t bit = 0; bit < 8; ++bit)
        if ((byte >> bit & 1) != 0) shift[part][byte] ^= bits[8 * part + bit];
  return shift;
}
std::uint32_t shifted(const Shift& shift, std::uint32_t crc) {
  return shift[0][crc & 255] ^ shift[1][crc >> 8 & 255] ^ shift[2][crc >> 16 & 255] ^ shift[3][crc >> 24];
}

#if defined(__x86_64__)
#define PCCL_CRC_TARGET __attribute__((target("sse4.2")))
PCCL_CRC_TARGET inline std::uint64_t step8(std::uint64_t crc, std::uint64_t word) {
  return __builtin_ia32_crc32di(crc, word);
}
PCCL_CRC_TARGET inline std::uint32_t step1(std::uint32_t crc, std::uint8_t byte) {
  return __builtin_ia32_crc32qi(crc, byte);
}
bool has_instruction() { return __builtin_cpu_supports("sse4.2") != 0; }
#elif defined(__aarch64__)
#define PCCL_CRC_TARGET __attribute__((target("+crc")))
PCCL_CRC_TARGET inline std::uint64_t step8(std::uint64_t crc, std::uint64_t word) {
  return __crc32cd(static_cast<std::uint32_t>(crc), word);
}
PCCL_CRC_TARGET inline std::uint32_t step1(std::uint32_t crc, std::uint8_t byte) {
  return __crc32cb(crc, byte);
}
bool has_instruction() { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#endif

#if defined(PCCL_CRC_TARGET)
// The instruction takes three cycles and one can begin in each: three lanes at once, put together afterwards.
PCCL_CRC_TARGET std::uint32_t by_instruction(const std::uint8_t* at, std::size_t bytes, std::uint32_t crc) {
  static const Shift one = make_shift(lane_bytes), two = make_shift(2 * lane_bytes);
  const auto word = [](const std::uint8_t* from) {
    std::uint64_t value = 0;
    std::memcpy(&value, from, sizeof value);
    return value;
  };
  for (; bytes >= 3 * lane_bytes; at += 3 * lane_bytes, bytes -= 3 * lane_bytes) {
    std::uint64_t a = crc, b = 0, c = 0;
    for (std::size_t i = 0; i < lane_bytes; i += 8) {
      a = step8(a, word(at + i));
      b = step8(b, word(at + lane_bytes + i));
      c = step8(c, word(at + 2 * lane_bytes + i));
    }
    crc = shifted(two, static_cast<std::uint32_t>(a)) ^ shifted(one, static_cast<std::uint32_t>(b)) ^
          static_cast<std::uint32_t>(c);
  }
  for (; bytes >= 8; at += 8, bytes -= 8) crc = static_cast<std::uint32_t>(step8(crc, word(at)));
  for (; bytes > 0; ++at, --bytes) crc = step1(crc, *at);
  return crc;
}
#endif

}  // namespace

std::uint32_t crc32c_by_table(ByteView bytes, std::uint32_t before) {
  auto crc = ~before;
  const auto* at = bytes.data();
  auto left = bytes.size();
  for (; left >= 8; at += 8, left -= 8) {
    const auto low = load_little<std::uint32_t>(at) ^ crc, high = load_little<std::uint32_t>(at + 4);
    crc = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255] ^
          tables[4][low >> 24] ^ tables[3][high & 255] ^ tables[2][high >> 8 & 255] ^
          tables[1][high >> 16 & 255] ^ tables[0][high >> 24];
  }
  for (; left > 0; ++at, --left) crc = (crc >> 8) ^ tables[0][(crc ^ *at) & 255];
  return ~crc;
}

std::uint32_t crc32c(ByteView bytes, std::uint32_t before) {
#if defined(PCCL_CRC_TARGET)
  static const bool instruction = has_instruction();
  if (instruction) return ~by_instruction(bytes.data(), bytes.size(), ~before);
#endif
  return crc32c_by_table(bytes, before);
}

}  // namespace pccl
