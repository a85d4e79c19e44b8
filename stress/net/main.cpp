// An emulator of a wide-area network: peers in network namespaces, every packet between them goes through
// this process. See emulator.py, which compiles and drives it.
//
//   wan run PEERS MTU TICK_US SEED    says "peer INDEX DESCRIPTOR ADDRESS" of each and "ready", then takes
//                                     commands; ends with standard input, on "quit", or with its parent
//   wan enter NAMESPACE COMMAND ...   runs the command inside
//
// Exit status 77: "missing TEXT" says what this machine does not give.
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

#include "control.hpp"
#include "namespaces.hpp"
#include "network.hpp"

namespace {

using namespace wan;

constexpr int exit_missing = 77, exit_usage = 2;
// So often it looks whether its parent is there: a child of the parent may hold standard input open.
constexpr Nanoseconds parent_watch = 500 * millisecond;

// The network must not wait for those who use it: it goes before every ordinary process. It sleeps between
// two turns, so they have the rest. Where that is not permitted, it goes without.
void go_first() {
  sched_param first{};
  first.sched_priority = 1;
  if (::sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &first) != 0)
    ::setpriority(PRIO_PROCESS, 0, -10);
  ::prctl(PR_SET_TIMERSLACK, 1ul);
}

Nanoseconds clock_now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1'000 * millisecond + time.tv_nsec;
}

timespec as_timespec(Nanoseconds time) {
  return {time / (1'000 * millisecond), time % (1'000 * millisecond)};
}

// Standard input; false: it has ended.
bool obey(Control& control) {
  char text[4096];
  const ssize_t bytes = ::read(STDIN_FILENO, text, sizeof text);
  if (bytes <= 0) return bytes < 0 && errno == EINTR;
  const std::string answers = control.take({text, static_cast<std::size_t>(bytes)});
  return std::fwrite(answers.data(), 1, answers.size(), stdout) == answers.size() && !std::fflush(stdout);
}

// One turn per tick while packets come, so that many are handled per wake-up; asleep else.
void forward(Network& network, Nanoseconds tick) {
  Control control(network);
  const pid_t parent = ::getppid();
  std::vector<pollfd> ready{{STDIN_FILENO, POLLIN, 0}};
  for (std::size_t i = 0; i < network.size(); ++i) ready.push_back({network.peer(i).device, POLLIN, 0});
  bool busy = false;
  std::optional<Nanoseconds> next;
  while (!control.is_over() && ::getppid() == parent) {
    const timespec pause = as_timespec(tick);
    if (busy) ::clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
    const Nanoseconds until_next = next ? std::max(tick, *next - clock_now()) : parent_watch;
    const timespec patience = as_timespec(busy ? 0 : std::min(parent_watch, until_next));
    if (::ppoll(ready.data(), ready.size(), &patience, nullptr) < 0 && errno != EINTR) return;
    if (ready[0].revents != 0 && !obey(control)) return;
    busy = false;
    const Nanoseconds now = clock_now();
    for (std::size_t i = 0; i < network.size(); ++i) {
      if (ready[i + 1].revents != 0 && network.receive(i, now)) busy = true;
    }
    next = network.deliver(clock_now());
  }
}

int run(std::size_t count, int mtu, Nanoseconds tick, std::uint64_t seed) {
  const auto made = make_namespaces(count, mtu);
  if (const auto* why = std::get_if<Missing>(&made)) {
    std::printf("missing %s\n", why->text.c_str());
    return exit_missing;
  }
  std::vector<int> devices;
  for (const Namespace& space : std::get<0>(made)) {
    std::printf("peer %zu %d %s\n", devices.size(), space.descriptor, space.address.c_str());
    devices.push_back(space.device);
  }
  go_first();
  std::puts("ready");
  std::fflush(stdout);
  Network network(devices, static_cast<std::size_t>(mtu), seed);
  forward(network, tick);
  return 0;
}

int usage() {
  std::fputs("usage: wan run PEERS MTU TICK_US SEED | wan enter NAMESPACE COMMAND ...\n", stderr);
  return exit_usage;
}

}  // namespace

int main(int count, char** words) {
  if (count >= 4 && std::strcmp(words[1], "enter") == 0) {
    std::fprintf(stderr, "wan enter: %s\n", run_inside(words[2], words + 3).text.c_str());
    return exit_missing;
  }
  if (count != 6 || std::strcmp(words[1], "run") != 0) return usage();
  const std::size_t peers = std::strtoul(words[2], nullptr, 10);
  const int mtu = std::atoi(words[3]);
  const Nanoseconds tick = std::atoll(words[4]) * microsecond;
  const std::uint64_t seed = std::strtoull(words[5], nullptr, 10);
  if (peers < 2 || peers > peers_max || mtu < 576 || mtu > 9000 || tick <= 0) return usage();
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);  // Ctrl-C is the parent's, which then ends this process
  return run(peers, mtu, tick, seed);
}
