#pragma once
// Writes one file by the disk's few threads, in any order of its parts: past the page cache where an aligned
// trial write works, else buffered. The file counts as written only once finish() has said so. write() may be
// called from any thread; open, finish, abandon and the destructor belong to one owner.

#include <sys/types.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "disk/file.hpp"
#include "disk/writer_crew.hpp"

namespace pccl::disk {

struct WriteTarget {
  std::string path;       // a temporary name: whoever commits renames it once finish() went well
  std::string recycle{};  // "", or a retired file: it takes the name `path` and is overwritten (faster)
  std::uint64_t bytes = 0;
  bool direct = true;  // false: always through the page cache
};

class ShardWriter {
 public:
  // Called once for each write(), on a writer thread, when its memory is free again: the bytes are on their
  // way down, or an error says why they are not. It must neither wait nor end the writer.
  using Done = std::function<void(const Error&)>;

  // Makes the file (or takes the recycled one) at its full length. A retired file that cannot be taken, or
  // that has other names whose content would change with it, is left alone and a new one made. On failure
  // nothing is left behind. `threads`: 1 to 4, shared by all files of the disk.
  static Result<std::unique_ptr<ShardWriter>> open(Disk& disk, const WriteTarget& target, unsigned threads);
  ~ShardWriter();  // abandon(), unless finish() has ended it
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  // `offset` is a multiple of 4096, and so is `bytes` except at the file's end; the memory is aligned to 4096
  // and readable up to the next multiple. Parts do not overlap. After a failure parts end with that error
  // unwritten.
  void write(std::uint64_t offset, const std::byte* aligned, std::size_t bytes, Done done);

  // Waits for all parts, cuts the file to its length, brings it to the device, closes it. The first error
  // wins; the file is then gone. Also an error: parts that do not sum up to the file.
  Error finish();

  // Ends what is queued with ErrorCode::cancelled, waits for what is under way, and removes the file.
  void abandon();

  bool direct() const;  // past the page cache, so far
  bool recycled() const { return recycled_; }
  std::uint64_t written() const;  // bytes of parts that have ended well

 private:
  ShardWriter(WriterCrew& crew, File file, std::uint64_t bytes, bool recycled);
  void carry_out(std::uint64_t offset, const std::byte* from, std::size_t bytes, const Done& done);
  Error wrong_with(std::uint64_t offset, const std::byte* from, std::size_t bytes) const;
  Error write_part(std::uint64_t offset, const std::byte* from, std::size_t bytes);
  Error wait_for_parts();
  Error make_durable();

  WriterCrew& crew_;
  const pid_t process_;
  File file_;
  const std::uint64_t bytes_;
  const bool recycled_;
  bool ended_ = false;  // the owner's
  mutable std::mutex mutex_;
  std::condition_variable part_ended_;
  std::uint64_t written_ = 0;
  std::size_t under_way_ = 0;
  Error first_error_;
};

}  // namespace pccl::disk
