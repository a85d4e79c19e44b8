#include "disk/injected_disk.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>

#include "base/clock.hpp"

namespace pccl::disk {

namespace {

constexpr std::string_view blanks = " \t";

std::string_view next_word(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
  const auto word = text.substr(0, text.find_first_of(blanks));
  text.remove_prefix(word.size());
  return word;
}

std::optional<std::uint64_t> number_of(std::string_view word) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc{} || end != word.data() + word.size()) return std::nullopt;
  return value;
}

bool parse_call(std::string_view word, Fault& fault) {
  for (std::size_t i = 0; i < calls_count; ++i) {
    if (word != name(Call(i))) continue;
    fault.call = Call(i);
    return true;
  }
  return false;
}

bool parse_which(std::string_view word, Fault& fault) {
  fault.last = UINT64_MAX;
  if (word == "*") return true;
  const auto dash = word.find('-');
  const bool open_end = word.ends_with('+');
  const auto first = number_of(open_end ? word.substr(0, word.size() - 1) : word.substr(0, dash));
  const auto last = dash == word.npos ? first : number_of(word.substr(dash + 1));
  if (!first || !last || *first == 0) return false;
  fault.first = *first;
  if (!open_end) fault.last = *last;
  return fault.first <= fault.last;
}

std::optional<int> errno_of(std::string_view word) {
  constexpr std::pair<std::string_view, int> known[] = {{"ENOSPC", ENOSPC}, {"EIO", EIO},
                                                        {"EROFS", EROFS},   {"EINTR", EINTR},
                                                        {"EINVAL", EINVAL}, {"EACCES", EACCES},
                                                        {"EDQUOT", EDQUOT}, {"ENOENT", ENOENT},
                                                        {"EXDEV", EXDEV},   {"EMFILE", EMFILE},
                                                        {"EFBIG", EFBIG},   {"EAGAIN", EAGAIN},
                                                        {"ESTALE", ESTALE}, {"EOPNOTSUPP", EOPNOTSUPP}};
  for (const auto& [text, number] : known) {
    if (word == text) return number;
  }
  return std::nullopt;
}

bool parse_what(std::string_view what, std::string_view amount, Fault& fault) {
  if (const auto error = errno_of(what)) {
    fault.value = *error;
    return amount.empty();
  }
  if (what == "kill") {
    fault.kind = Fault::Kind::kill;
    return amount.empty();
  }
  const auto number = number_of(amount);
  if (!number || *number > std::uint64_t(INT32_MAX)) return false;
  fault.kind = what == "cut" ? Fault::Kind::cut : Fault::Kind::delay;
  fault.value = what == "cut" ? std::int64_t(*number) : std::int64_t(*number) * millisecond;
  return what == "cut" || what == "delay";
}

}  // namespace

Result<std::vector<Fault>> parse_faults(std::string_view script) {
  std::vector<Fault> faults;
  while (!script.empty()) {
    const auto entry = script.substr(0, script.find_first_of(";\n"));
    script.remove_prefix(std::min(entry.size() + 1, script.size()));
    auto rest = entry;
    const auto call = next_word(rest), which = next_word(rest), what = next_word(rest),
               amount = next_word(rest);
    if (call.empty()) continue;
    Fault fault;
    if (!parse_call(call, fault) || !parse_which(which, fault) || !parse_what(what, amount, fault) ||
        !next_word(rest).empty())
      return Error{ErrorCode::usage,
                   "no fault of a disk: \"" + std::string(entry) +
                       "\"; write CALL WHICH WHAT, for example \"pwrite 3 ENOSPC\", \"pread "
                       "2-5 cut 100\", \"fdatasync * delay 20\", \"rename 1 kill\""};
    faults.push_back(fault);
  }
  return faults;
}

InjectedDisk::InjectedDisk(std::vector<Fault> faults, Disk& under)
    : faults_(std::move(faults)), under_(under) {}

InjectedDisk::Verdict InjectedDisk::enter(Call call) {
  Verdict verdict;
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = ++calls_[std::size_t(call)];
  }
  for (const auto& fault : faults_) {
    if (fault.call != call || number < fault.first || number > fault.last) continue;
    if (fault.kind == Fault::Kind::error) verdict.error = int(fault.value);
    if (fault.kind == Fault::Kind::cut) verdict.bytes_max = std::size_t(fault.value);
    if (fault.kind == Fault::Kind::delay) std::this_thread::sleep_for(std::chrono::nanoseconds(fault.value));
    if (fault.kind == Fault::Kind::kill) ::kill(::getpid(), SIGKILL);
  }
  return verdict;
}

std::uint64_t InjectedDisk::calls(Call call) const {
  const std::lock_guard lock(mutex_);
  return calls_[std::size_t(call)];
}

Outcome InjectedDisk::open(const std::string& path, Purpose purpose) {
  const auto verdict = enter(Call::open);
  return verdict.error != 0 ? Outcome{-1, verdict.error} : under_.open(path, purpose);
}

Outcome InjectedDisk::facts(int file, FileFacts& facts) {
  const auto verdict = enter(Call::facts);
  return verdict.error != 0 ? Outcome{-1, verdict.error} : under_.facts(file, facts);
}

Outcome InjectedDisk::direct(int file, bool on) {
  const auto verdict = enter(Call::direct);
  return verdict.error != 0 ? Outcome{-1, verdict.error} : under_.direct(file, on);
}

Outcome InjectedDisk::allocate(int file, std::uint64_t bytes) {
  const auto verdict = enter(Call::allocate);
  return verdict.error != 0 ? Outcome{-1, verdict.error} : under_.allocate(file, bytes);
}

Outcome InjectedDisk::truncate(int file, std::uint64_t bytes) {
  const auto verdict = enter(Call::truncate);
  return verdict.error != 0 ? Outcome{-1, verdict.error} : under_.truncate(file, bytes);
}

// Nothing beyond the count is written, as far as whole pages allow where the file is direct.
Outcome InjectedDisk::pwrite(int file, const std::byte* from, std::size_t bytes, std::uint64_t offset) {
  const auto verdict = enter(Call::pwrite);
  if (verdict.error != 0) return {-1, verdict.error};
  if (verdict.bytes_max >= bytes) return under_.pwrite(file, from, bytes, offset);
  auto outcome = under_.pwrite(file, from, verdict.bytes_max, offset);
  if (outcome.error == EINVAL)
    outcome = under_.pwrite(file, from, std::size_t(round_down(verdict.bytes_max)), offset);
  return outcome.error != 0 ? outcome : Outcome{std::int64_t(verdict.bytes_max), 0};
}

// What lies beyond the count is not what the file holds.
Outcome InjectedDisk::pread(int file, std::byte* to, std::size_t bytes, std::uint64_t offset) {
  const auto verdict = enter(Call::pread);
  if (verdict.error != 0) return {-1, verdict.error};
  const auto most =
      std::min(std::uint64_t(bytes), verdict.bytes_max < bytes ? round_up(verdict.bytes_max) : bytes);
  const auto outcome = under_.pread(file, to, std::size_t(most), offset);
  if (outcome.error != 0 || std::size_t(outcome.value) <= verdict.bytes_max) return outcome;
  std::memset(to + verdict.bytes_max, 0xaa, std::size_t(most) - verdict.bytes_max);
  return {std::int64_t(verdict.bytes_max), 0};
}

Outcome InjectedDisk::push(int file, std::uint64_t offset, std::uint64_t bytes) {
  const auto verdict = enter(Call::push);
  return verdict.error != 0 ? Outcome{-1, verdict.error} : under_.push(file, offset, bytes);
}

Outcome InjectedDisk::fdatasync(int file) {
  const auto verdict = enter(Call::fdatasync);
  return verdict.error != 0 ? Outcome{-1, verdict.error} : under_.fdatasync(file);
}

// It is closed whatever is said of it: so does the system.
Outcome InjectedDisk::close(int file) {
  const auto verdict = enter(Call::close);
  const auto outcome = under_.close(file);
  return verdict.error != 0 ? Outcome{-1, verdict.error} : outcome;
}

Outcome InjectedDisk::rename(const std::string& from, const std::string& to) {
  const auto verdict = enter(Call::rename);
  return verdict.error != 0 ? Outcome{-1, verdict.error} : under_.rename(from, to);
}

Outcome InjectedDisk::unlink(const std::string& path) {
  const auto verdict = enter(Call::unlink);
  return verdict.error != 0 ? Outcome{-1, verdict.error} : under_.unlink(path);
}

Outcome InjectedDisk::mkdir(const std::string& path) {
  const auto verdict = enter(Call::mkdir);
  return verdict.error != 0 ? Outcome{-1, verdict.error} : under_.mkdir(path);
}

}  // namespace pccl::disk
