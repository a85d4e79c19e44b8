#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "disk/disk.hpp"

namespace pccl::disk {

namespace {

Outcome outcome_of(std::int64_t returned) { return returned < 0 ? Outcome{-1, errno} : Outcome{returned, 0}; }

// A number that the kernel would take for a negative one.
Outcome too_large() { return {-1, EFBIG}; }
bool fits(std::uint64_t bytes) { return bytes <= std::uint64_t(INT64_MAX); }

class SystemDisk final : public Disk {
 public:
  Outcome open(const std::string& path, Purpose purpose) override {
    // Not through a link when writing: what it points to may be anybody's. Never waiting for a pipe's other
    // end.
    const int flags = purpose == Purpose::read ? O_RDONLY : O_WRONLY | O_CREAT | O_NOFOLLOW;
    const auto opened = outcome_of(::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666));
    // Advice for reading through the page cache; nobody minds where it is not taken.
    if (opened.error == 0 && purpose == Purpose::read)
      ::posix_fadvise(int(opened.value), 0, 0, POSIX_FADV_SEQUENTIAL);
    return opened;
  }
  Outcome facts(int file, FileFacts& facts) override {
    struct stat found{};
    const auto outcome = outcome_of(::fstat(file, &found));
    if (outcome.error == 0)
      facts = {S_ISREG(found.st_mode), std::uint64_t(found.st_size), std::uint64_t(found.st_nlink)};
    return outcome;
  }
  Outcome direct(int file, bool on) override {
    const int flags = ::fcntl(file, F_GETFL);
    if (flags < 0) return outcome_of(flags);
    return outcome_of(::fcntl(file, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT));
  }
  Outcome allocate(int file, std::uint64_t bytes) override {
    return fits(bytes) ? outcome_of(::fallocate(file, 0, 0, off_t(bytes))) : too_large();
  }
  Outcome truncate(int file, std::uint64_t bytes) override {
    return fits(bytes) ? outcome_of(::ftruncate(file, off_t(bytes))) : too_large();
  }
  Outcome pwrite(int file, const std::byte* from, std::size_t bytes, std::uint64_t offset) override {
    return fits(offset) ? outcome_of(::pwrite(file, from, bytes, off_t(offset))) : too_large();
  }
  Outcome pread(int file, std::byte* to, std::size_t bytes, std::uint64_t offset) override {
    return fits(offset) ? outcome_of(::pread(file, to, bytes, off_t(offset))) : too_large();
  }
  Outcome push(int file, std::uint64_t offset, std::uint64_t bytes) override {
    return outcome_of(::sync_file_range(file, off_t(offset), off_t(bytes), SYNC_FILE_RANGE_WRITE));
  }
  Outcome fdatasync(int file) override { return outcome_of(::fdatasync(file)); }
  Outcome close(int file) override { return outcome_of(::close(file)); }
  Outcome rename(const std::string& from, const std::string& to) override {
    return outcome_of(::rename(from.c_str(), to.c_str()));
  }
  Outcome unlink(const std::string& path) override { return outcome_of(::unlink(path.c_str())); }
  Outcome mkdir(const std::string& path) override { return outcome_of(::mkdir(path.c_str(), 0777)); }
};

}  // namespace

Disk& system_disk() {
  static auto* const disk = new SystemDisk;
  return *disk;
}

}  // namespace pccl::disk
