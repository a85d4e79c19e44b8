// Runs the registered tests, one after the other, in the order of their names.
//   pccl_tests [--list] [--filter SUBSTRING]... [--deadline SECONDS]
// A test that takes longer than the deadline (default 600 s) ends the program, by name.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>

#include <unistd.h>

#include "check.hpp"

namespace pccl::check {
namespace {

std::mutex failures_mutex;
int failures = 0;   // of the running test; guarded by failures_mutex
char running[256];  // its name, where a signal handler can read it

struct Options {
  bool list = false;
  unsigned deadline_s = 600;
  std::vector<std::string_view> filters;
};

// Only what a signal handler may do.
void on_deadline(int) {
  const char text[] = "\ndeadline passed in ";
  bool written = ::write(STDERR_FILENO, text, sizeof text - 1) > 0;
  written = ::write(STDERR_FILENO, running, std::strlen(running)) > 0 && written;
  ::_exit(written ? 3 : 4);
}

[[noreturn]] void usage() {
  std::fprintf(stderr, "usage: pccl_tests [--list] [--filter SUBSTRING]... [--deadline SECONDS]\n");
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--list") {
      options.list = true;
    } else if (argument == "--filter" && i + 1 < argc) {
      options.filters.emplace_back(argv[++i]);
    } else if (argument == "--deadline" && i + 1 < argc) {
      options.deadline_s = static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10));
    } else {
      usage();
    }
  }
  return options;
}

std::vector<TestCase> selected(const Options& options) {
  std::vector<TestCase> result;
  for (const TestCase& test : tests()) {
    const auto matches = [&](std::string_view part) { return test.name.find(part) != std::string::npos; };
    if (options.filters.empty() || std::ranges::any_of(options.filters, matches)) result.push_back(test);
  }
  std::ranges::stable_sort(result, {}, &TestCase::name);
  return result;
}

void call(const TestCase& test) {
  try {
    test.body();
  } catch (const Stopped&) {
  } catch (const std::exception& error) {
    fail(std::source_location::current(), std::string("uncaught exception: ") + error.what());
  } catch (...) {
    fail(std::source_location::current(), "uncaught exception of another kind");
  }
}

bool passes(const TestCase& test, unsigned deadline_s) {
  std::snprintf(running, sizeof running, "%s", test.name.c_str());
  {
    const std::scoped_lock lock(failures_mutex);
    failures = 0;
  }
  ::alarm(deadline_s);
  const auto start = std::chrono::steady_clock::now();
  call(test);
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
  ::alarm(0);
  const std::scoped_lock lock(failures_mutex);
  std::printf("%s %s (%.0f ms)\n", failures == 0 ? "ok    " : "FAILED", test.name.c_str(), elapsed.count());
  std::fflush(stdout);
  return failures == 0;
}

}  // namespace

std::vector<TestCase>& tests() {
  static std::vector<TestCase> all;
  return all;
}

bool add_test(std::string_view file, std::string_view name, void (*body)()) {
  constexpr std::string_view root = "tests/cpp/";
  if (const auto at = file.rfind(root); at != std::string_view::npos) file.remove_prefix(at + root.size());
  tests().push_back({std::string(file.substr(0, file.rfind('.'))) + "." + std::string(name), body});
  return true;
}

void fail(const std::source_location& where, const std::string& what) {
  const std::scoped_lock lock(failures_mutex);
  std::printf("%s:%u: %s\n", where.file_name(), static_cast<unsigned>(where.line()), what.c_str());
  if (++failures == 100) {
    std::printf("%s: 100 failures are enough\n", running);
    std::fflush(stdout);
    std::_Exit(1);
  }
}

int failures_so_far() {
  const std::scoped_lock lock(failures_mutex);
  return failures;
}

void forgive(int wanted) {
  const std::scoped_lock lock(failures_mutex);
  failures = wanted;
}

int run_all(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const std::vector<TestCase> chosen = selected(options);
  if (options.list) {
    for (const TestCase& test : chosen) std::printf("%s\n", test.name.c_str());
    return 0;
  }
  std::signal(SIGALRM, on_deadline);
  const auto passed =
      std::ranges::count_if(chosen, [&](const TestCase& test) { return passes(test, options.deadline_s); });
  const auto failed = std::ssize(chosen) - passed;
  std::printf("%lld passed, %lld failed\n", static_cast<long long>(passed), static_cast<long long>(failed));
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace pccl::check

int main(int argc, char** argv) { return pccl::check::run_all(argc, argv); }
