#include "runtime/own_thread.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "check.hpp"

namespace pccl {
namespace {

using Attributes = std::array<std::uint8_t, 48>;  // struct sched_attr, its first version

std::uint64_t slice_ns() {
  Attributes now{};
  std::uint64_t runtime = 0;
  if (syscall(SYS_sched_getattr, 0, now.data(), now.size(), 0) == 0)
    std::memcpy(&runtime, now.data() + 24, sizeof runtime);
  return runtime;
}

TEST(short_slices_are_taken_and_given_back) {
  std::uint64_t before = 1, taken = 1, after = 1;
  auto thread = start_thread([&] {
    begin_own_thread("test");
    before = slice_ns();
    take_short_slices(true);
    taken = slice_ns();
    take_short_slices(false);
    after = slice_ns();
  });
  REQUIRE(thread);
  thread.value()->join();
  CHECK(after == before);
  CHECK(before == 0 || (taken < before && taken > 0));  // 0: the kernel has no slices of a thread's own
}

}  // namespace
}  // namespace pccl
