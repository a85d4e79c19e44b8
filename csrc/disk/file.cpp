#include "disk/file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace pccl::disk {

namespace {

// Interrupted or empty calls in a row, until somebody is told.
constexpr unsigned idle_max = 100;

bool is_interruption(int error) { return error == EINTR || error == EAGAIN; }

// Of an optional service of the file system.
bool is_refusal(int error) { return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL; }

template <class F> Outcome uninterrupted(F call) {
  Outcome outcome = call();
  for (unsigned i = 1; is_interruption(outcome.error) && i < idle_max; ++i) outcome = call();
  return outcome;
}

}  // namespace

File::File(Disk& disk, std::string path, Purpose purpose, int descriptor)
    : disk_(disk), path_(std::move(path)), purpose_(purpose), descriptor_(descriptor) {}

File::File(File&& other) noexcept
    : disk_(other.disk_),
      path_(other.path_),
      purpose_(other.purpose_),
      descriptor_(std::exchange(other.descriptor_, -1)),
      direct_(other.direct()) {}

File::~File() {
  if (descriptor_ >= 0) disk_.close(descriptor_);
}

Result<File> File::open(Disk& disk, std::string path, Purpose purpose) {
  if (path.find('\0') != std::string::npos)
    return Error{ErrorCode::usage,
                 "a path with a zero byte in it names no file: " + path.substr(0, path.find('\0'))};
  const auto opened = uninterrupted([&] { return disk.open(path, purpose); });
  if (opened.error != 0) return failure(Call::open, purpose, path, opened.error);
  File file(disk, std::move(path), purpose, int(opened.value));
  const auto facts = file.facts();
  if (!facts) {
    if (purpose == Purpose::write) file.discard();
    return facts.error();
  }
  if (!facts.value().regular)
    return Error{purpose == Purpose::read ? ErrorCode::damaged : ErrorCode::checkpoint,
                 file.path() + " is no regular file; remove it, or choose another folder"};
  return file;
}

Result<FileFacts> File::facts() {
  FileFacts facts;
  const auto outcome = uninterrupted([&] { return disk_.facts(descriptor_, facts); });
  if (outcome.error != 0) return failed(Call::facts, outcome.error);
  return facts;
}

bool File::try_direct(std::uint64_t offset) {
  alignas(page_bytes) std::array<std::byte, page_bytes> page{};
  if (disk_.direct(descriptor_, true).error != 0) return false;
  const auto tried = uninterrupted([&] {
    return purpose_ == Purpose::read ? disk_.pread(descriptor_, page.data(), page.size(), offset)
                                     : disk_.pwrite(descriptor_, page.data(), page.size(), offset);
  });
  // At a file's end less may be read.
  const bool works = tried.error == 0 && (purpose_ == Purpose::read || tried.value == page_bytes);
  direct_ = works;
  if (!works) leave_direct();
  return works;
}

void File::leave_direct() {
  disk_.direct(descriptor_, false);
  direct_ = false;
}

// Whether to call again after one that brought nothing: interrupted, refused past the page cache, or ended
// within a page there.
bool File::again(const Outcome& outcome, unsigned& idle) {
  if (++idle >= idle_max) return false;
  if (outcome.error == 0 || is_interruption(outcome.error)) {
    if (outcome.value > 0) leave_direct();
    return true;
  }
  if (outcome.error != EINVAL || !direct()) return false;
  leave_direct();
  return true;
}

Error File::write(const std::byte* from, std::size_t bytes, std::uint64_t offset) {
  unsigned idle = 0;
  while (bytes > 0) {
    const bool whole_pages = direct();  // before the call: another thread may end it meanwhile
    const auto outcome = disk_.pwrite(descriptor_, from, bytes, offset);
    auto done = outcome.error == 0 ? std::min(std::size_t(outcome.value), bytes) : 0;
    if (done < bytes && whole_pages) done = round_down(done);
    if (done == 0) {
      if (again(outcome, idle)) continue;
      return failed(Call::pwrite, outcome.error == 0 ? EIO : outcome.error);
    }
    from += done;
    offset += done;
    bytes -= done;
    idle = 0;
  }
  return {};
}

Result<std::size_t> File::read(std::byte* to, std::size_t bytes, std::uint64_t offset) {
  unsigned idle = 0;
  std::size_t have = 0;
  while (have < bytes) {
    const bool whole_pages = direct();
    const auto left = bytes - have;
    const auto outcome =
        disk_.pread(descriptor_, to + have, whole_pages ? round_up(left) : left, offset + have);
    if (outcome.error == 0 && outcome.value == 0) break;  // the file's end
    auto done = outcome.error == 0 ? std::min(std::size_t(outcome.value), left) : 0;
    if (done < left && whole_pages) done = round_down(done);
    if (done == 0) {
      if (again(outcome, idle)) continue;
      return failed(Call::pread, outcome.error == 0 ? EIO : outcome.error);
    }
    have += done;
    idle = 0;
  }
  return have;
}

Error File::allocate(std::uint64_t bytes) {
  const auto outcome = uninterrupted([&] { return disk_.allocate(descriptor_, bytes); });
  if (outcome.error == 0 || is_refusal(outcome.error)) return {};
  return failed(Call::allocate, outcome.error);
}

Error File::truncate(std::uint64_t bytes) {
  const auto outcome = uninterrupted([&] { return disk_.truncate(descriptor_, bytes); });
  return outcome.error == 0 ? Error{} : failed(Call::truncate, outcome.error);
}

void File::push(std::uint64_t offset, std::uint64_t bytes) { disk_.push(descriptor_, offset, bytes); }

Error File::sync() {
  // Never twice after a failure: the system forgets which pages it could not write.
  const auto outcome = uninterrupted([&] { return disk_.fdatasync(descriptor_); });
  return outcome.error == 0 ? Error{} : failed(Call::fdatasync, outcome.error);
}

Error File::close() {
  const auto outcome = disk_.close(std::exchange(descriptor_, -1));
  // Interrupted, it is closed all the same.
  return outcome.error == 0 || outcome.error == EINTR ? Error{} : failed(Call::close, outcome.error);
}

void File::discard() {
  if (descriptor_ >= 0) disk_.close(std::exchange(descriptor_, -1));
  disk_.unlink(path_);
}

}  // namespace pccl::disk
