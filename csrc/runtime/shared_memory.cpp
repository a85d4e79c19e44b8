#include "runtime/shared_memory.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/limits.hpp"
#include "net/fork_guard.hpp"

namespace pccl {

namespace {

constexpr std::size_t huge_page = 2u << 20;
constexpr std::size_t cache_line = 64;
constexpr std::size_t slab_bytes = 16u << 20;
// From here on a tensor has a segment of its own: its memory comes back when it is dropped.
constexpr std::size_t own_segment_from = 1u << 20;

std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

// Not executable, and never shorter or longer; -1: there is none.
int sealed_memory(std::size_t bytes) {
  const int fd = ::memfd_create("pccl", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -1;
  // Pages are there before anybody reads them: no signal for want of memory later.
  if (::ftruncate(fd, off_t(bytes)) != 0 || ::fallocate(fd, 0, 0, off_t(bytes)) != 0 ||
      ::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    ::close(fd);
    return -1;
  }
  net::guard_from_fork(fd);
  return fd;
}

void close_memory(int fd, int process) {
  if (fd < 0 || process != ::getpid()) return;  // a forked child has it no more
  net::unguard(fd);
  ::close(fd);
}

}  // namespace

void* map_aligned(int fd, std::size_t bytes, int protection) {
  if (bytes < huge_page) {
    void* base = ::mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
    return base == MAP_FAILED ? nullptr : base;
  }
  const auto room = round_up(bytes, huge_page) + huge_page;
  void* reserved = ::mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::uint8_t*>(reserved);
  auto* aligned =
      reinterpret_cast<std::uint8_t*>(round_up(reinterpret_cast<std::uintptr_t>(begin), huge_page));
  const bool mapped = ::mmap(aligned, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
  auto* end = aligned + (mapped ? round_up(bytes, std::size_t(::sysconf(_SC_PAGESIZE))) : 0);
  if (aligned != begin) ::munmap(begin, std::size_t(aligned - begin));
  if (end != begin + room) ::munmap(end, std::size_t(begin + room - end));
  return mapped ? aligned : nullptr;
}

SharedMemory& SharedMemory::instance() {
  static auto* const memory = [] {
    net::install_fork_guard();
    auto* made = new SharedMemory;
    ::pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                     [] { instance().mutex_.unlock(); });
    return made;
  }();
  return *memory;
}

SharedMemory::BySegment::iterator SharedMemory::create(std::size_t bytes) {
  if (segments_.size() >= limits::segments_max) return segments_.end();
  const auto size = round_up(bytes, std::size_t(::sysconf(_SC_PAGESIZE)));
  const int fd = sealed_memory(size);
  if (fd < 0) return segments_.end();
  auto* base = static_cast<std::uint8_t*>(map_aligned(fd, size, PROT_READ | PROT_WRITE));
  if (base == nullptr) {
    close_memory(fd, ::getpid());
    return segments_.end();
  }
#ifdef MADV_COLLAPSE
  if (size >= huge_page) ::madvise(base, size, MADV_COLLAPSE);  // huge pages, where the kernel gives them
#endif
  Mapped mapped{{next_number_++, fd, size}, base, ::getpid(), 0, 0, false};
  return segments_.emplace(base, mapped).first;
}

std::uint8_t* SharedMemory::allocate(std::size_t bytes) {
  bytes = round_up(std::max<std::size_t>(bytes, 1), cache_line);
  const std::lock_guard lock(mutex_);
  if (bytes >= own_segment_from) {
    const auto it = create(bytes);
    if (it == segments_.end()) return nullptr;
    it->second.used = bytes;
    it->second.living = 1;
    return it->first;
  }
  auto it = slab_ == nullptr ? segments_.end() : segments_.find(slab_);
  const bool fits = it != segments_.end() && it->second.process == ::getpid() &&
                    it->second.segment.bytes - it->second.used >= bytes;
  if (!fits) {
    it = create(slab_bytes);
    if (it == segments_.end()) return nullptr;
    it->second.shared = true;
    slab_ = it->first;
  }
  auto* memory = it->first + it->second.used;
  it->second.used += bytes;
  ++it->second.living;
  return memory;
}

SharedMemory::BySegment::const_iterator SharedMemory::around(const std::uint8_t* memory) const {
  auto it = segments_.upper_bound(const_cast<std::uint8_t*>(memory));
  if (it == segments_.begin()) return segments_.end();
  --it;
  return memory < it->first + it->second.segment.bytes ? it : segments_.end();
}

void SharedMemory::free(std::uint8_t* memory) {
  const std::lock_guard lock(mutex_);
  const auto it = around(memory);
  if (it == segments_.end()) return;
  auto mapped = it->second;
  if (mapped.shared && mapped.living > 1) {
    --segments_.at(it->first).living;
    return;
  }
  if (slab_ == it->first) slab_ = nullptr;
  segments_.erase(it);
  ::munmap(mapped.base, mapped.segment.bytes);
  close_memory(mapped.segment.fd, mapped.process);
}

std::optional<SharedMemory::Place> SharedMemory::find(const std::uint8_t* begin, std::size_t bytes) const {
  const std::lock_guard lock(mutex_);
  const auto it = around(begin);
  if (it == segments_.end() || it->second.process != ::getpid()) return std::nullopt;
  const auto offset = std::uint64_t(begin - it->first);
  if (bytes > it->second.segment.bytes - offset) return std::nullopt;
  return Place{it->second.segment, offset};
}

bool SharedMemory::exists(std::uint32_t segment) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(segments_.begin(), segments_.end(),
                     [&](const auto& entry) { return entry.second.segment.number == segment; });
}

std::size_t SharedMemory::bytes() const {
  const std::lock_guard lock(mutex_);
  std::size_t all = 0;
  for (const auto& [base, mapped] : segments_) all += mapped.segment.bytes;
  return all;
}

Door::Door(const void* token, std::size_t bytes)
    : fd_(sealed_memory(std::size_t(::sysconf(_SC_PAGESIZE)))), process_(::getpid()) {
  if (fd_ < 0 || ::pwrite(fd_, token, bytes, 0) == ssize_t(bytes)) return;
  close_memory(fd_, process_);
  fd_ = -1;
}

Door::~Door() { close_memory(fd_, process_); }

}  // namespace pccl
