// Memory of other processes of this host: read where it is, or mapped where it is shared. Every failure is an
// ordinary outcome here (another user, container or namespace, a process that is gone): the caller goes
// another way. Any thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace pccl {

// Whether all bytes could be read from that process. Where not, `to` holds anything.
bool read_process_memory(int process, std::uint64_t address, void* to, std::size_t bytes);

// Lets other processes of this user read this one's memory, where the kernel's ptrace_scope wants to be
// asked.
void allow_readers();

// A segment of another process, mapped for reading. It cannot become shorter while it is mapped, whatever its
// owner does: that is checked. Content may change at any time.
class ForeignSegment {
 public:
  // Null: it cannot be opened or mapped, is no sealed memory, or has fewer bytes.
  static std::shared_ptr<const ForeignSegment> map(int process, std::uint32_t descriptor,
                                                   std::uint64_t bytes);
  ~ForeignSegment();
  ForeignSegment(const ForeignSegment&) = delete;

  // Null: it does not lie inside.
  const std::uint8_t* at(std::uint64_t offset, std::size_t bytes) const {
    return offset <= bytes_ && bytes <= bytes_ - offset ? base_ + offset : nullptr;
  }
  std::uint64_t bytes() const { return bytes_; }

 private:
  ForeignSegment(const std::uint8_t* base, std::uint64_t bytes) : base_(base), bytes_(bytes) {}
  const std::uint8_t* base_;
  std::uint64_t bytes_;
};

}  // namespace pccl
