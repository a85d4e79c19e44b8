#include "staging/memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14; older headers lack it
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

namespace pccl::staging {
namespace {

constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;
constexpr std::size_t page_bytes = 4096;

Error no_memory(std::size_t bytes, int error) {
  return {ErrorCode::checkpoint, "cannot have " + std::to_string(bytes >> 20) +
                                     " MiB of staging memory: " + std::strerror(error) +
                                     "; make the pool smaller, or raise the limit of "
                                     "memory (ulimit -v, the container's, the size of /dev/shm for a memfd)"};
}

Error unfit(int fd, std::size_t bytes) {
  struct stat facts{};
  if (::fstat(fd, &facts) != 0)
    return {ErrorCode::usage, "descriptor " + std::to_string(fd) + ": " + std::strerror(errno)};
  if (static_cast<std::uint64_t>(facts.st_size) >= bytes) return {};
  return {ErrorCode::usage, "descriptor " + std::to_string(fd) + " has " + std::to_string(facts.st_size) +
                                " bytes, the pool needs " + std::to_string(bytes) + ": ftruncate it first"};
}

// Addresses alone, at a multiple of huge pages; null: there are none.
std::byte* reserve(std::size_t bytes) {
  const std::size_t more = bytes + huge_page_bytes;
  void* const raw = ::mmap(nullptr, more, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(raw);
  const auto misaligned = reinterpret_cast<std::uintptr_t>(begin) % huge_page_bytes;
  const std::size_t before = misaligned == 0 ? 0 : huge_page_bytes - misaligned;
  if (before > 0) ::munmap(begin, before);
  ::munmap(begin + before + bytes, huge_page_bytes - before);
  return begin + before;
}

bool is_huge_line(const char* line) {
  for (const char* name :
       {"AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:", "Shared_Hugetlb:", "Private_Hugetlb:"})
    if (std::strncmp(line, name, std::strlen(name)) == 0) return true;
  return false;
}

// Of the mappings within these addresses.
std::size_t huge_bytes(const std::byte* data, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  std::FILE* const maps = std::fopen("/proc/self/smaps", "re");
  if (maps == nullptr) return 0;
  std::size_t sum = 0;
  bool inside = false;
  char line[512];
  while (std::fgets(line, sizeof line, maps) != nullptr) {
    unsigned long from = 0, to = 0, kilobytes = 0;
    if (std::sscanf(line, "%lx-%lx ", &from, &to) == 2)
      inside = from < begin + bytes && begin < to;
    else if (inside && is_huge_line(line) && std::sscanf(line, "%*s %lu", &kilobytes) == 1)
      sum += std::size_t{kilobytes} << 10;
  }
  std::fclose(maps);
  return sum;
}

// These bytes have memory when this returns. An errno, or 0.
int give_pages(std::byte* data, std::size_t bytes) {
  const int error = populate_pages(data, bytes, true);
  if (error != EINVAL && error != ENOSYS) return error;
  touch_pages(data, bytes);
  return 0;
}

}  // namespace

int populate_pages(std::byte* data, std::size_t bytes, bool to_write) {
  return ::madvise(data, bytes, to_write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0 ? 0 : errno;
}

void touch_pages(std::byte* data, std::size_t bytes) {
  // One write: a read before it would be given a page of zeros, which the write would replace at once.
  for (std::size_t at = 0; at < bytes; at += page_bytes)
    __atomic_fetch_or(reinterpret_cast<unsigned char*>(data + at), 0, __ATOMIC_RELAXED);
}

WarmMemory::WarmMemory(std::byte* data, std::size_t bytes) : data_(data), bytes_(bytes), process_(getpid()) {}

WarmMemory::~WarmMemory() {
  // In a forked child these addresses may belong to somebody else by now.
  if (getpid() == process_) ::munmap(data_, bytes_);
}

Error WarmMemory::populate(int fd) {
  // First of all: a page that the file system cannot give would end the process when it is touched.
  if (fd >= 0 && ::fallocate(fd, 0, 0, static_cast<off_t>(bytes_)) != 0 && errno != EOPNOTSUPP)
    return no_memory(bytes_, errno);
  if (const int error = give_pages(data_, bytes_); error != 0) return no_memory(bytes_, error);
  return {};
}

Result<std::unique_ptr<WarmMemory>> WarmMemory::map(std::size_t bytes, int fd, bool huge_pages,
                                                    bool populate) {
  if (fd >= 0)
    if (auto error = unfit(fd, bytes)) return error;
  std::byte* const place = reserve(bytes);
  if (place == nullptr) return no_memory(bytes, errno);
  std::unique_ptr<WarmMemory> memory(new WarmMemory(place, bytes));  // unmaps it from here on
  const int flags = MAP_FIXED | (fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
  if (::mmap(place, bytes, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED)
    return no_memory(bytes, errno);
  ::madvise(place, bytes, MADV_DONTFORK);
  ::madvise(place, bytes, huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);  // not everywhere; slower without
  if (!populate && fd < 0) return memory;
  if (auto error = memory->populate(fd)) return error;
  memory->huge_ = 2 * huge_bytes(place, bytes) > bytes;
  return memory;
}

}  // namespace pccl::staging
