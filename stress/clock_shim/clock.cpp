// Wall clocks that can be set, one per process, for whoever is started with this in LD_PRELOAD: what the
// C library says about the time of day is off by what a shared file says. Clocks that cannot be set stay
// as they are.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>

namespace {

constexpr unsigned slots_max = 64;
constexpr std::int64_t second = 1'000'000'000;

// Nanoseconds per slot, written by the orchestrator.
std::atomic<std::int64_t>* slots = nullptr;
std::atomic<unsigned> own_slot{0};

__attribute__((constructor)) void open_slots() {
  const char* path = std::getenv("STRESS_CLOCKS");
  if (path == nullptr) return;
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void* memory = mmap(nullptr, slots_max * sizeof(std::int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (memory != MAP_FAILED) slots = static_cast<std::atomic<std::int64_t>*>(memory);
}

using Gettime = int (*)(clockid_t, timespec*);
Gettime real_gettime() {
  static const auto found = reinterpret_cast<Gettime>(dlsym(RTLD_NEXT, "clock_gettime"));
  return found;
}

std::int64_t offset() {
  return slots == nullptr ? 0 : slots[own_slot.load(std::memory_order_relaxed)].load();
}

}  // namespace

extern "C" {

void stress_clock_slot(unsigned slot) { own_slot = slot < slots_max ? slot : 0; }

int clock_gettime(clockid_t clock, timespec* to) {
  const int status = real_gettime()(clock, to);
  if (status != 0 || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return status;
  const std::int64_t now = to->tv_sec * second + to->tv_nsec + offset();
  to->tv_sec = now / second;
  to->tv_nsec = now % second;
  return 0;
}

int gettimeofday(timeval* to, void*) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  to->tv_sec = now.tv_sec;
  to->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t* to) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  if (to != nullptr) *to = now.tv_sec;
  return now.tv_sec;
}
}
