#pragma once
// A disk whose calls fail, fall short, dawdle or end the process by a script: for tests of what happens then.
// Any thread; calls of all files are counted together.

#include <array>
#include <mutex>
#include <string_view>
#include <vector>

#include "disk/disk.hpp"

namespace pccl::disk {

// Of the calls number `first` to `last`, counted from 1 for each kind of call.
struct Fault {
  enum class Kind : std::uint8_t { error, cut, delay, kill };
  Call call = Call::open;
  std::uint64_t first = 1, last = 1;
  Kind kind = Kind::error;
  std::int64_t value = 0;  // an errno, bytes at most, or nanoseconds
};

// Entries divided by ";" or line ends: CALL WHICH WHAT, where CALL is a name of disk.hpp, WHICH is `3` (the
// third call), `3+` (it and all later ones), `3-5` or `*`, and WHAT is an error by name (ENOSPC, EIO, EROFS,
// EINTR, EINVAL, EACCES, EDQUOT, ENOENT, EOPNOTSUPP), `cut BYTES` (pwrite and pread take that many at most),
// `delay MILLISECONDS` (before the call) or `kill` (SIGKILL to this process instead of the call).
Result<std::vector<Fault>> parse_faults(std::string_view script);

class InjectedDisk final : public Disk {
 public:
  explicit InjectedDisk(std::vector<Fault> faults, Disk& under = system_disk());

  Outcome open(const std::string& path, Purpose purpose) override;
  Outcome facts(int file, FileFacts& facts) override;
  Outcome direct(int file, bool on) override;
  Outcome allocate(int file, std::uint64_t bytes) override;
  Outcome truncate(int file, std::uint64_t bytes) override;
  Outcome pwrite(int file, const std::byte* from, std::size_t bytes, std::uint64_t offset) override;
  Outcome pread(int file, std::byte* to, std::size_t bytes, std::uint64_t offset) override;
  Outcome push(int file, std::uint64_t offset, std::uint64_t bytes) override;
  Outcome fdatasync(int file) override;
  Outcome close(int file) override;
  Outcome rename(const std::string& from, const std::string& to) override;
  Outcome unlink(const std::string& path) override;
  Outcome mkdir(const std::string& path) override;

  std::uint64_t calls(Call call) const;  // so far

 private:
  struct Verdict {
    int error = 0;
    std::size_t bytes_max = SIZE_MAX;
  };
  Verdict enter(Call call);

  const std::vector<Fault> faults_;
  Disk& under_;
  mutable std::mutex mutex_;
  std::array<std::uint64_t, calls_count> calls_{};
};

}  // namespace pccl::disk
