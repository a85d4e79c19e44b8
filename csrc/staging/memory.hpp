#pragma once
// Memory that is there before it is needed: mapped where huge pages fit and, unless the first use may do
// that, populated; of its own or of a caller's memfd. A forked child does not have it: else its mere
// existence would make every page of the parent's be copied at the next write. One owner.

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.hpp"

namespace pccl::staging {

// These bytes of private memory, whole pages, have memory when this returns; what they hold stays. For
// threads of low priority: MADV_POPULATE_WRITE would keep the lock of the process's mappings while it makes
// them, and such a thread may be off its core for long with it; then a training step that maps memory stands
// still. A page that is touched takes the lock of its own mapping alone (Linux 6.4), and for itself.
void touch_pages(std::byte* data, std::size_t bytes);

// The same at once, of any mapping; `to_write` false: what has memory already is mapped. An errno where there
// is none; EINVAL or ENOSYS: the system cannot (before Linux 5.14).
int populate_pages(std::byte* data, std::size_t bytes, bool to_write);

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
