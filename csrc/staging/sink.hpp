#pragma once
// Where full slabs go: a writer of files, or memory in tests.

#include <cstddef>
#include <cstdint>
#include <functional>

#include "base/result.hpp"

namespace pccl::staging {

class Sink {
 public:
  // The memory is free again; or why the bytes went nowhere, which ends the capture. Any thread, once, also
  // within write().
  using Release = std::function<void(const Error&)>;

  virtual ~Sink() = default;
  // Called once per slab, in any order, by copy threads and by callers of fences: it must not wait. The
  // memory is aligned to 4096 and readable up to the next multiple of it, with zeros behind the file's end.
  virtual void write(std::uint64_t offset, const std::byte* memory, std::size_t bytes, Release release) = 0;
};

}  // namespace pccl::staging
