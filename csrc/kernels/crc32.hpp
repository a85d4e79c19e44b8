#pragma once
// CRC-32 (IEEE 802.3, as zlib's): checksums of checkpoints. CRC-32C (Castagnoli, as iSCSI's): of snapshots.
// Pure functions over caller-owned memory, callable from any thread; the instruction set is chosen once, and
// all of them give the same numbers.

#include <cstddef>
#include <cstdint>

namespace pccl::kernels {

// The polynomials, the coefficient of x^0 highest.
enum class Crc32Polynomial : std::uint32_t { ieee = 0xedb88320, castagnoli = 0x82f63b78 };

// `armv8` has instructions for both polynomials; the others multiply without carries, 16 or 64 bytes at a
// time.
enum class Crc32Level : std::uint8_t { scalar, armv8, pclmul, vpclmul };
inline constexpr Crc32Level all_crc32_levels[] = {Crc32Level::scalar, Crc32Level::armv8, Crc32Level::pclmul,
                                                  Crc32Level::vpclmul};

struct Crc32Table;  // kernels/crc32_table.hpp

class Crc32Set {
 public:
  explicit constexpr Crc32Set(const Crc32Table& table) : table_(&table) {}
  Crc32Level level() const;
  // Of the bytes, or of what came before and them: of(b, n, of(a, m)) is that of a and b together.
  std::uint32_t of(const void* data, std::size_t bytes, std::uint32_t before = 0) const;
  // The same while the bytes are copied, in one pass over memory. Buffers do not overlap. `streaming`: past
  // the caches, for what nobody here reads soon.
  std::uint32_t copy(void* to, const void* from, std::size_t bytes, std::uint32_t before = 0,
                     bool streaming = false) const;

 private:
  const Crc32Table* table_;
};

// The fastest set that this CPU runs.
const Crc32Set& best_crc32();
const Crc32Set& best_crc32c();

// A given level; nullptr if the CPU or the build lacks it. For tests and measurements.
const Crc32Set* crc32_at(Crc32Level level);
const Crc32Set* crc32c_at(Crc32Level level);

// What so many more bytes do to a CRC: made once, used for all parts of that length.
class Crc32Shift {
 public:
  explicit Crc32Shift(std::uint64_t bytes, Crc32Polynomial polynomial = Crc32Polynomial::ieee);
  // Of a and b together, where b has those bytes.
  std::uint32_t combine(std::uint32_t crc_a, std::uint32_t crc_b) const;

 private:
  Crc32Polynomial polynomial_;
  std::uint32_t power_;  // x^(8 * bytes)
};

// Of a and b together, from the CRCs of both and the length of b.
std::uint32_t crc32_combine(std::uint32_t crc_a, std::uint32_t crc_b, std::uint64_t bytes_b);
std::uint32_t crc32c_combine(std::uint32_t crc_a, std::uint32_t crc_b, std::uint64_t bytes_b);

}  // namespace pccl::kernels
