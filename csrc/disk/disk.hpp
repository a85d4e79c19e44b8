#pragma once
// The system's file calls behind an interface, so that tests can make the n-th one fail (injected_disk.hpp).
// Calls are safe from any thread. A disk also owns what its files share: writer threads and read buffers;
// whoever opened a file on it ends with that file first.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace pccl::disk {

class BounceBuffers;
class WriterCrew;
struct DiskParts;

// Alignment that direct input and output asks for: of memory, offset and size.
inline constexpr std::size_t page_bytes = 4096;

constexpr std::uint64_t round_down(std::uint64_t bytes) { return bytes / page_bytes * page_bytes; }
constexpr std::uint64_t round_up(std::uint64_t bytes) { return round_down(bytes + page_bytes - 1); }

// What one call came to: a count or a descriptor, or why it failed.
struct Outcome {
  std::int64_t value = 0;
  int error = 0;  // an errno; 0: it did not fail
};

// Of an open file.
struct FileFacts {
  bool regular = false;
  std::uint64_t bytes = 0;
  std::uint64_t links = 0;  // names that it has
};

// The names are those of InjectedDisk's script, too.
enum class Call : std::uint8_t {
  open,
  facts,
  direct,
  allocate,
  truncate,
  pwrite,
  pread,
  push,
  fdatasync,
  close,
  rename,
  unlink,
  mkdir,
};
inline constexpr std::size_t calls_count = 13;
const char* name(Call call);

enum class Purpose : std::uint8_t { read, write };  // to write: the file is made where there is none

class Disk {
 public:
  Disk();
  virtual ~Disk();
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  virtual Outcome open(const std::string& path, Purpose purpose) = 0;
  virtual Outcome facts(int file, FileFacts& facts) = 0;
  virtual Outcome direct(int file, bool on) = 0;  // past the page cache from now on, or not any more
  virtual Outcome allocate(int file, std::uint64_t bytes) = 0;
  virtual Outcome truncate(int file, std::uint64_t bytes) = 0;
  virtual Outcome pwrite(int file, const std::byte* from, std::size_t bytes, std::uint64_t offset) = 0;
  virtual Outcome pread(int file, std::byte* to, std::size_t bytes, std::uint64_t offset) = 0;
  // Written pages begin their way to the device; nobody waits for them.
  virtual Outcome push(int file, std::uint64_t offset, std::uint64_t bytes) = 0;
  virtual Outcome fdatasync(int file) = 0;
  virtual Outcome close(int file) = 0;
  virtual Outcome rename(const std::string& from, const std::string& to) = 0;
  virtual Outcome unlink(const std::string& path) = 0;
  virtual Outcome mkdir(const std::string& path) = 0;

  // Of this process: a forked child has neither the threads nor the buffers and makes its own.
  WriterCrew& crew();
  BounceBuffers& buffers();

 private:
  DiskParts& parts();

  std::atomic<DiskParts*> parts_;
};

// The one of this process; it is never destroyed.
Disk& system_disk();

}  // namespace pccl::disk
