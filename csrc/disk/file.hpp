#pragma once
// One open file and its name: system calls resumed after interruptions and short counts, errors told with
// path, reason and next step. Offsets are given, so any thread may read and write; closing belongs to the
// owner.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "disk/disk.hpp"

namespace pccl::disk {

// "cannot write PATH: No space left on device; free space ...". The code is `damaged` where somebody who
// reads has lost this copy for good, else `checkpoint`.
Error failure(Call call, Purpose purpose, const std::string& path, int error);

class File {
 public:
  // Regular files only.
  static Result<File> open(Disk& disk, std::string path, Purpose purpose);
  File(File&& other) noexcept;
  File& operator=(File&&) = delete;
  ~File();  // closes it, and nobody hears of a failure

  const std::string& path() const { return path_; }
  Result<FileFacts> facts();
  // Past the page cache, where a page at `offset` shows that it works: read, or overwritten with zeros.
  // Whatever speaks against it, the file is then used through the page cache.
  bool try_direct(std::uint64_t offset);
  bool direct() const { return direct_.load(std::memory_order_relaxed); }

  Error allocate(std::uint64_t bytes);  // where the file system can
  Error truncate(std::uint64_t bytes);
  // `from`, `offset` and `bytes` are aligned where the file is direct.
  Error write(const std::byte* from, std::size_t bytes, std::uint64_t offset);
  // As many bytes as there are, up to `bytes`. Where the file is direct, memory and offset are aligned, and
  // the memory has room for round_up(bytes).
  Result<std::size_t> read(std::byte* to, std::size_t bytes, std::uint64_t offset);
  void push(std::uint64_t offset, std::uint64_t bytes);
  Error sync();
  Error close();  // once
  // Closes it and removes its name; if that fails, too, a temporary file stays that the next start sweeps.
  void discard();

 private:
  File(Disk& disk, std::string path, Purpose purpose, int descriptor);
  Error failed(Call call, int error) const { return failure(call, purpose_, path_, error); }
  void leave_direct();
  bool again(const Outcome& outcome, unsigned& idle);

  Disk& disk_;
  const std::string path_;
  const Purpose purpose_;
  int descriptor_;
  std::atomic<bool> direct_{false};
};

}  // namespace pccl::disk
