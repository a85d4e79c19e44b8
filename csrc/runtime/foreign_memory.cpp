#include "runtime/foreign_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <string>

#include "runtime/shared_memory.hpp"

namespace pccl {

bool read_process_memory(int process, std::uint64_t address, void* to, std::size_t bytes) {
  if (address > UINTPTR_MAX - bytes) return false;
  while (bytes > 0) {
    const iovec here{to, bytes}, there{reinterpret_cast<void*>(std::uintptr_t(address)), bytes};
    const auto got = ::process_vm_readv(process, &here, 1, &there, 1, 0);
    if (got <= 0) return false;
    to = static_cast<std::uint8_t*>(to) + got;
    address += std::uint64_t(got);
    bytes -= std::size_t(got);
  }
  return true;
}

void allow_readers() {
#ifdef PR_SET_PTRACER
  ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);  // without Yama it fails, and is not needed
#endif
}

namespace {

// The descriptor itself is of no use: it is closed when its memory is mapped.
class Opened {
 public:
  explicit Opened(const std::string& path)
      : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)) {}
  ~Opened() {
    if (fd_ >= 0) ::close(fd_);
  }
  Opened(const Opened&) = delete;
  int fd() const { return fd_; }
  // A sealed file cannot be truncated under our feet, which would end this process with a signal.
  bool holds(std::uint64_t bytes) const {
    struct stat about{};
    const int seals = fd_ < 0 ? -1 : ::fcntl(fd_, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && ::fstat(fd_, &about) == 0 && bytes > 0 &&
           about.st_size >= 0 && std::uint64_t(about.st_size) >= bytes;
  }

 private:
  int fd_;
};

}  // namespace

std::shared_ptr<const ForeignSegment> ForeignSegment::map(int process, std::uint32_t descriptor,
                                                          std::uint64_t bytes) {
  const Opened file("/proc/" + std::to_string(process) + "/fd/" + std::to_string(descriptor));
  if (!file.holds(bytes)) return nullptr;
  void* base = map_aligned(file.fd(), bytes, PROT_READ);
  if (base == nullptr) return nullptr;
  return std::shared_ptr<const ForeignSegment>(
      new ForeignSegment(static_cast<const std::uint8_t*>(base), bytes));
}

ForeignSegment::~ForeignSegment() { ::munmap(const_cast<std::uint8_t*>(base_), bytes_); }

}  // namespace pccl
