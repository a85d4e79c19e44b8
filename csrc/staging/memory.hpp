#pragma once
// Memory that is there before it is needed: mapped where huge pages fit and, unless the first use may do
// that, populated; of its own or of a caller's memfd. A forked child does not have it: else its mere
// existence would make every page of the parent's be copied at the next write. One owner.

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.hpp"

namespace pccl::staging {

// These bytes, whole pages, have memory when this returns; what they hold stays. An errno, or 0.
int give_pages(std::byte* data, std::size_t bytes);

class WarmMemory {
 public:
  // `fd`: a memfd (or another file of memory) of at least these bytes, mapped shared from its begin; it stays
  // the caller's and may be closed at once. -1: private memory.
  static Result<std::unique_ptr<WarmMemory>> map(std::size_t bytes, int fd, bool huge_pages, bool populate);
  ~WarmMemory();
  WarmMemory(const WarmMemory&) = delete;
  WarmMemory& operator=(const WarmMemory&) = delete;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  bool huge() const { return huge_; }  // mostly in huge pages, as the system says

 private:
  WarmMemory(std::byte* data, std::size_t bytes);
  Error populate(int fd);

  std::byte* const data_;
  const std::size_t bytes_;
  const int process_;
  bool huge_ = false;
};

}  // namespace pccl::staging
