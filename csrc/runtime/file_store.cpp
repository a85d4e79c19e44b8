#include "runtime/file_store.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/limits.hpp"
#include "base/sha256.hpp"
#include "net/fork_guard.hpp"

namespace pccl {

namespace {

constexpr std::string_view suffix = ".run";
constexpr char unfinished[] = "unfinished";
constexpr std::size_t record_bytes_max = std::size_t{64} << 20;  // a view of all members is far below

// A run's name may have any character, and more of them than a file's.
std::string file_of(const std::string& run_name) {
  static constexpr char digits[] = "0123456789abcdef";
  const auto digest = sha256({reinterpret_cast<const std::uint8_t*>(run_name.data()), run_name.size()});
  std::string file;
  for (std::size_t at = 0; at < 16; ++at) {
    file += digits[digest[at] >> 4];
    file += digits[digest[at] & 15];
  }
  return file + std::string(suffix);
}

bool write_all(int fd, ByteView bytes) {
  while (!bytes.empty()) {
    const auto written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return true;
}

std::optional<Bytes> read_all(int folder, const std::string& file) {
  const int fd = openat(folder, file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return std::nullopt;
  struct stat about{};
  std::optional<Bytes> bytes;
  if (fstat(fd, &about) == 0 && about.st_size >= 0 && std::size_t(about.st_size) <= record_bytes_max) {
    bytes.emplace(static_cast<std::size_t>(about.st_size));
    std::size_t at = 0;
    for (ssize_t got = 1; got > 0 && at < bytes->size(); at += got > 0 ? std::size_t(got) : 0)
      got = read(fd, bytes->data() + at, bytes->size() - at);
    bytes->resize(at);
  }
  close(fd);
  return bytes;
}

Error cannot(const std::string& what, const std::string& folder) {
  return {ErrorCode::usage, "state_dir " + folder + ": " + what + ": " + std::strerror(errno)};
}

// mkdir -p
bool make_folders(const std::string& folder) {
  for (std::size_t at = folder.find('/', 1); at != std::string::npos; at = folder.find('/', at + 1))
    if (mkdir(folder.substr(0, at).c_str(), 0777) != 0 && errno != EEXIST) return false;
  return mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST;
}

}  // namespace

Result<std::unique_ptr<FileStore>> FileStore::open(const std::string& folder) {
  if (!make_folders(folder)) return cannot("cannot make it", folder);
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return cannot("cannot open it", folder);
  const int lock = openat(fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  const auto error = lock < 0 ? cannot("cannot write there", folder) : Error{};
  auto store = std::unique_ptr<FileStore>(new FileStore(folder, fd, lock));
  if (error) return error;
  net::guard_from_fork(lock);  // a forked child would keep the next master out
  if (flock(lock, LOCK_EX | LOCK_NB) != 0)
    return Error{ErrorCode::usage, "state_dir " + folder +
                                       " is another master's, which still runs: end that one, or name "
                                       "another folder"};
  return store;
}

FileStore::~FileStore() {
  if (net::unguard(lock_fd_)) close(lock_fd_);
  close(folder_fd_);
}

Result<std::vector<Bytes>> FileStore::load() {
  const int listed = openat(folder_fd_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* folder = listed < 0 ? nullptr : fdopendir(listed);
  if (folder == nullptr) {
    const auto error = cannot("cannot list it", folder_);
    if (listed >= 0) close(listed);
    return error;
  }
  std::vector<Bytes> records;
  while (const auto* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (!name.ends_with(suffix) || records.size() >= limits::runs_max) continue;
    if (auto record = read_all(folder_fd_, name)) records.push_back(std::move(*record));
  }
  closedir(folder);
  return records;
}

MasterStore::Outcome FileStore::keep(const std::string& run_name, ByteView record) {
  const auto failed = [&](const char* what) {
    return Outcome{Outcome::Kind::failed, "state_dir " + folder_ + ": cannot " + what + ": " +
                                              std::strerror(errno) +
                                              "; a restart of this master would not know the newest view"};
  };
  const int fd = openat(folder_fd_, unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return failed("write");
  const bool written = write_all(fd, record) && fsync(fd) == 0;
  const auto why = errno;
  close(fd);
  errno = why;
  if (!written) return failed("write");
  if (renameat(folder_fd_, unfinished, folder_fd_, file_of(run_name).c_str()) != 0) return failed("rename");
  return fsync(folder_fd_) == 0 ? Outcome{} : failed("make the name durable");
}

void FileStore::forget(const std::string& run_name) {
  unlinkat(folder_fd_, file_of(run_name).c_str(), 0);
  fsync(folder_fd_);
}

}  // namespace pccl
