// Reed-Solomon on memory: parities of data, changes of them, lost blocks from any k others, and which blocks
// are wrong. Callable from any thread; memory is the caller's, of any alignment (of 64 bytes is fastest), and
// blocks that are written overlap nothing else.
#pragma once
#include <array>
#include <optional>
#include <span>
#include <vector>

#include "erasure/code.hpp"
#include "kernels/galois.hpp"

namespace pccl::erasure {

using Read = std::span<const std::byte* const>;
using Written = std::span<std::byte* const>;

struct Verdict {
  bool right = true;
  // Which blocks are wrong, sorted; nothing where more than m / 2 are: which cannot be told then.
  std::optional<std::vector<std::uint32_t>> wrong = std::vector<std::uint32_t>{};
};

// Copies and gives the CRC-32C of what was copied, in one pass over memory.
std::uint32_t copy_summed(std::byte* to, const std::byte* from, std::size_t bytes, std::size_t threads);

class ReedSolomon {
 public:
  // 1 <= k, k + m <= 256.
  explicit ReedSolomon(const Code& code, const kernels::GaloisSet& set = kernels::best_galois())
      : code_(code), rows_(parity_rows(code)), set_(&set) {}

  const Code& code() const { return code_; }

  // All m parities in one reading of the k blocks of data, each of `bytes`.
  void encode(Read data, Written parity, std::size_t bytes, std::size_t threads) const;

  // The same while the data are copied, and CRC-32C of each block of data, of what was copied.
  std::vector<std::uint32_t> encode_copying(Read data, Written copies, Written parity, std::size_t bytes,
                                            std::size_t threads) const;

  // `parity` after block `slot` of the data changed from `old` to `now`. Parities that are null stay as they
  // are.
  void update(Written parity, std::uint32_t slot, const std::byte* old, const std::byte* now,
              std::size_t bytes, std::size_t threads) const;

  // Blocks by number. Those of `lost` are written, of `present` as many as it takes are read; as recipe().
  // False: fewer than k are present.
  bool decode(Written blocks, std::span<const std::uint32_t> present, std::span<const std::uint32_t> lost,
              std::size_t bytes, std::size_t threads) const;

  Verdict verify(Read blocks, std::size_t bytes, std::size_t threads) const;

 private:
  std::optional<std::vector<std::uint32_t>> wrong_in(Read blocks, std::size_t first, std::size_t count) const;
  void copy_range(Read data, Written copies, Written parity, std::size_t first, std::size_t count,
                  std::span<std::uint32_t> sums) const;

  Code code_;
  Matrix rows_;
  const kernels::GaloisSet* set_;
};

}  // namespace pccl::erasure
