#include "runtime/file_store.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <variant>

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

// Empty: all `bytes` are filled. Else why not.
std::string fill(int fd, Bytes& bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const auto got = read(fd, bytes.data() + at, bytes.size() - at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::strerror(errno);
    if (got == 0) return "it became shorter while it was read";
    at += static_cast<std::size_t>(got);
  }
  return "";
}

// A record, or why there is none. Others may have put anything there: a link, a pipe.
std::variant<Bytes, std::string> read_record(int folder, const std::string& file) {
  const int fd = openat(folder, file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return errno == ELOOP ? "it is a symbolic link" : std::strerror(errno);
  struct stat about{};
  Bytes bytes;
  std::string why;
  if (fstat(fd, &about) != 0) {
    why = std::strerror(errno);
  } else if (!S_ISREG(about.st_mode)) {
    why = "it is no regular file";
  } else if (std::size_t(about.st_size) > record_bytes_max) {
    why = std::to_string(about.st_size) + " bytes are more than any record has";
  } else {
    bytes.resize(static_cast<std::size_t>(about.st_size));
    why = fill(fd, bytes);
  }
  close(fd);
  if (!why.empty()) return why;
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

Result<MasterStore::Records> FileStore::load() {
  const int listed = openat(folder_fd_, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* folder = listed < 0 ? nullptr : fdopendir(listed);
  if (folder == nullptr) {
    const auto error = cannot("cannot list it", folder_);
    if (listed >= 0) close(listed);
    return error;
  }
  Records records;
  while (const auto* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (!name.ends_with(suffix)) continue;
    auto record = records.found.size() < limits::runs_max
                      ? read_record(folder_fd_, name)
                      : "a master serves " + std::to_string(limits::runs_max) + " runs at most";
    if (auto* bytes = std::get_if<Bytes>(&record))
      records.found.push_back(std::move(*bytes));
    else
      records.unread.push_back(folder_ + "/" + name + ": " + std::get<std::string>(record));
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
