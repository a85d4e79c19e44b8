#include "runtime/recorder.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace pccl {

namespace {

// Header, in words: magic, sizes, events, written, wall clock less ours, run, peer, process; then host and
// island with 64 bytes each. Entry: its number from 1 on (0: being written), time, kind and names, a, b.
constexpr std::uint64_t magic = 0x31454341'52544350;  // "PCTRACE1"
constexpr std::size_t header_words = Recorder::header_bytes / 8, entry_words = Recorder::entry_bytes / 8;
constexpr std::size_t text_bytes = 64;
enum At : std::size_t {
  magic_at,
  sizes_at,
  events_at,
  written_at,
  wall_at,
  run_at,
  peer_at,
  process_at,
  host_at,
  island_at = host_at + text_bytes / 8
};

std::int64_t wall_less_monotonic() {
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(wall).count() - monotonic_now();
}

}  // namespace

Recorder::Recorder(std::size_t events, const std::string& folder) : events_(events) {
  if (events_ == 0) return;
  const auto bytes = header_bytes + events_ * entry_bytes;
  if (folder.empty() || !map_file(folder, bytes)) {
    own_ = std::make_unique<std::uint64_t[]>(bytes / 8);
    words_ = own_.get();
  }
  char host[text_bytes] = {};
  gethostname(host, sizeof host - 1);
  set(sizes_at, header_bytes | std::uint64_t{entry_bytes} << 32);
  set(events_at, events_);
  set(wall_at, std::uint64_t(wall_less_monotonic()));
  set(process_at, std::uint64_t(getpid()));
  set_text(host_at, host);
  set(magic_at, magic);
}

Recorder::~Recorder() {
  if (mapped_bytes_ != 0) ::munmap(words_, mapped_bytes_);
}

// Its blocks are there before anything is written: a full disk is an error here, no signal later.
bool Recorder::map_file(const std::string& folder, std::size_t bytes) {
  char host[text_bytes] = {};
  gethostname(host, sizeof host - 1);
  for (int number = 0; number < 1000; ++number) {
    file_ =
        folder + "/" + host + "-" + std::to_string(getpid()) + "-" + std::to_string(number) + ".pccltrace";
    const int fd = ::open(file_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && errno == EEXIST) continue;
    int failed = fd < 0 ? errno : ::posix_fallocate(fd, 0, off_t(bytes));
    if (failed == 0) {
      auto* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
      if (base == MAP_FAILED)
        failed = errno;
      else
        words_ = static_cast<std::uint64_t*>(base), mapped_bytes_ = bytes;
    }
    if (fd >= 0) ::close(fd);
    if (failed == 0) return true;
    if (fd >= 0) ::unlink(file_.c_str());
    error_ = file_ + ": " + std::strerror(failed);
    break;
  }
  file_.clear();
  return false;
}

void Recorder::set_text(std::size_t word, const std::string& text) {
  std::uint8_t padded[text_bytes] = {};
  std::memcpy(padded, text.data(), std::min(text.size(), text_bytes));
  for (std::size_t i = 0; i < text_bytes / 8; ++i) set(word + i, load_little<std::uint64_t>(padded + 8 * i));
}

void Recorder::identify(std::uint64_t run, PeerId peer, const std::string& island) {
  if (events_ == 0) return;
  set(run_at, run);
  set(peer_at, peer);
  set_text(island_at, island);
}

std::size_t Recorder::slot_of(std::uint64_t number) const {
  return header_words + number % events_ * entry_words;
}

// An entry's number is taken away first and put back last; whoever has read a new word sees that it is away.
// The ring is larger than the inner caches, and stores that miss them cost more than everything else here:
// what an operation will write is fetched while the one before it writes.
void Recorder::note(const Event& e) {
  if (!on()) return;
  constexpr std::uint64_t ahead = 16;  // an operation between two peers notes nine
  const auto slot = slot_of(written_);
  __builtin_prefetch(words_ + slot_of(written_ + ahead), 1);
  const auto put = [&](std::size_t word, std::uint64_t value) {
    Word(words_[slot + word]).store(to_little(value), std::memory_order_release);
  };
  const auto& key = e.key;
  set(slot, 0);
  put(1, std::uint64_t(e.at));
  put(2, std::uint64_t(e.kind) | std::uint64_t(e.call) << 8 | std::uint64_t(key.scope) << 16 |
             std::uint64_t{key.group} << 32);
  put(3, key.tag.boundary | std::uint64_t{key.tag.name} << 32);
  put(4, key.tag.count | key.from << 32);
  put(5, (e.peer & UINT32_MAX) | key.to << 32);
  put(6, e.a);
  put(7, e.b);
  put(0, ++written_);
  set(written_at, written_);
}

Bytes Recorder::copy() const {
  if (events_ == 0) return {};
  Bytes copied(header_bytes + events_ * entry_bytes);
  std::size_t bytes = 0;
  const auto add = [&](std::uint64_t raw) {
    std::memcpy(copied.data() + bytes, &raw, 8);
    bytes += 8;
  };
  const auto get = [&](std::size_t word) { return Word(words_[word]).load(std::memory_order_acquire); };
  for (std::size_t word = 0; word < header_words; ++word) add(get(word));
  for (std::size_t entry = 0; entry < events_; ++entry) {
    const auto slot = slot_of(entry), begin = bytes;
    const auto number = get(slot);
    if (number == 0) continue;
    add(number);
    for (std::size_t word = 1; word < entry_words; ++word) add(get(slot + word));
    if (get(slot) != number) bytes = begin;  // overwritten meanwhile
  }
  copied.resize(bytes);
  return copied;
}

std::string write_trace(const std::string& path, const Bytes& copied) {
  const int fd = ::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
  int failed = fd < 0 ? errno : 0;
  for (std::size_t done = 0; failed == 0 && done < copied.size();) {
    const auto wrote = ::write(fd, copied.data() + done, copied.size() - done);
    if (wrote > 0)
      done += std::size_t(wrote);
    else if (wrote == 0 || errno != EINTR)
      failed = wrote == 0 ? ENOSPC : errno;
  }
  if (fd >= 0) ::close(fd);
  if (failed == 0) return {};
  if (fd >= 0) ::unlink(path.c_str());
  return path + ": " + std::strerror(failed);
}

}  // namespace pccl
