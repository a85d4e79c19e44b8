#include "disk/shard_writer.hpp"

#include <unistd.h>

#include <utility>

#include "base/niceness.hpp"

namespace pccl::disk {

namespace {

// At its full length, so that parts neither extend it one after the other nor find the disk full half-way.
Error give_length(File& file, std::uint64_t bytes) {
  const auto facts = file.facts();
  if (!facts) return facts.error();
  const auto wanted = round_up(bytes);
  if (facts.value().bytes > wanted) return file.truncate(wanted);
  if (facts.value().bytes < wanted) return file.allocate(wanted);
  return {};
}

// Nobody else's content: a file with further names is left to them, and a new one takes this name.
Result<File> open_own(Disk& disk, const std::string& path) {
  auto file = File::open(disk, path, Purpose::write);
  if (!file) return file;
  const auto facts = file->facts();
  if (facts && facts.value().links == 1) return file;
  file->discard();
  if (!facts) return facts.error();
  return File::open(disk, path, Purpose::write);
}

Result<File> open_new_or_recycled(Disk& disk, const WriteTarget& target, bool& recycled) {
  recycled = !target.recycle.empty() && disk.rename(target.recycle, target.path).error == 0;
  if (recycled) {
    if (auto file = open_own(disk, target.path)) return file;
    disk.unlink(target.path);
    recycled = false;
  }
  return open_own(disk, target.path);
}

}  // namespace

Result<std::unique_ptr<ShardWriter>> ShardWriter::open(Disk& disk, const WriteTarget& target,
                                                       unsigned threads) {
  if (target.bytes > std::uint64_t(INT64_MAX) - page_bytes)
    return Error{ErrorCode::usage, "no file has " + std::to_string(target.bytes) + " bytes: " + target.path};
  if (auto error = disk.crew().staff(threads)) return error;
  bool recycled = false;
  auto file = open_new_or_recycled(disk, target, recycled);
  if (!file) return file.error();
  if (auto error = give_length(*file, target.bytes)) {
    file->discard();
    return error;
  }
  if (target.direct && target.bytes > 0) file->try_direct(0);
  return std::unique_ptr<ShardWriter>(new ShardWriter(disk.crew(), std::move(*file), target.bytes, recycled));
}

ShardWriter::ShardWriter(WriterCrew& crew, File file, std::uint64_t bytes, bool recycled)
    : crew_(crew), process_(::getpid()), file_(std::move(file)), bytes_(bytes), recycled_(recycled) {}

ShardWriter::~ShardWriter() {
  if (process_ == ::getpid()) abandon();  // in a forked child the file is the parent's
}

Error ShardWriter::wrong_with(std::uint64_t offset, const std::byte* from, std::size_t bytes) const {
  const bool inside = bytes <= bytes_ && offset <= bytes_ - bytes;
  const bool aligned = offset % page_bytes == 0 && reinterpret_cast<std::uintptr_t>(from) % page_bytes == 0;
  if (inside && aligned && (bytes % page_bytes == 0 || offset + bytes == bytes_)) return {};
  return {ErrorCode::usage, "bytes " + std::to_string(offset) + " to " + std::to_string(offset) + " + " +
                                std::to_string(bytes) + " of " + file_.path() + " (" +
                                std::to_string(bytes_) +
                                " bytes) are no part that can be written: give whole pages of 4096 from "
                                "aligned memory, and less only at the end"};
}

void ShardWriter::write(std::uint64_t offset, const std::byte* aligned, std::size_t bytes, Done done) {
  {
    const std::lock_guard lock(mutex_);
    ++under_way_;
  }
  crew_.put(
      [this, offset, aligned, bytes, done = std::move(done)] { carry_out(offset, aligned, bytes, done); });
}

void ShardWriter::carry_out(std::uint64_t offset, const std::byte* from, std::size_t bytes,
                            const Done& done) {
  Error error;
  {
    const std::lock_guard lock(mutex_);
    error = first_error_;
  }
  if (!error) error = wrong_with(offset, from, bytes);
  if (!error) error = write_part(offset, from, bytes);
  if (done) done(error);
  const std::lock_guard lock(mutex_);
  if (!error) written_ += bytes;
  if (error && !first_error_) first_error_ = error;
  --under_way_;
  part_ended_.notify_all();  // under the lock: whoever waits may destroy this right after
}

Error ShardWriter::write_part(std::uint64_t offset, const std::byte* from, std::size_t bytes) {
  // The end's padding is cut off by finish().
  const auto padded = std::size_t(round_up(bytes));
  // Past the page cache it is the device that works: 6 ms of processor for a GiB. A thread that comes late to
  // ask for more lets it idle, so only one that has to copy steps back, from then on.
  if (!file_.direct()) step_behind_main_thread();
  if (auto error = file_.write(from, padded, offset)) return error;
  if (!file_.direct()) file_.push(offset, padded);
  return {};
}

Error ShardWriter::wait_for_parts() {
  std::unique_lock lock(mutex_);
  part_ended_.wait(lock, [&] { return under_way_ == 0; });
  if (!first_error_ && written_ != bytes_)
    first_error_ = {ErrorCode::internal, "only " + std::to_string(written_) + " of " +
                                             std::to_string(bytes_) + " bytes of " + file_.path() +
                                             " were given to be written"};
  return first_error_;
}

Error ShardWriter::make_durable() {
  const auto facts = file_.facts();
  if (!facts) return facts.error();
  if (facts.value().bytes != bytes_) {
    if (auto error = file_.truncate(bytes_)) return error;
  }
  if (auto error = file_.sync()) return error;
  return file_.close();
}

Error ShardWriter::finish() {
  if (ended_) return {ErrorCode::usage, file_.path() + " has been ended already"};
  auto error = wait_for_parts();
  if (!error) error = make_durable();
  if (error) file_.discard();
  ended_ = true;
  return error;
}

void ShardWriter::abandon() {
  if (std::exchange(ended_, true)) return;
  {
    std::unique_lock lock(mutex_);
    if (!first_error_) first_error_ = {ErrorCode::cancelled, "writing " + file_.path() + " was given up"};
    part_ended_.wait(lock, [&] { return under_way_ == 0; });
  }
  file_.discard();
}

bool ShardWriter::direct() const { return file_.direct(); }

std::uint64_t ShardWriter::written() const {
  const std::lock_guard lock(mutex_);
  return written_;
}

}  // namespace pccl::disk
