#include "fuzz/campaign.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>

#include "fuzz/coverage.hpp"
#include "fuzz/mutate.hpp"

namespace pccl::fuzz {
namespace {

constexpr std::size_t last_bytes = input_bytes_max + 8;
constexpr int seeds_drawn = 40;
// What is worth its place in a corpus that is read by people's tools and run by every test.
constexpr std::size_t corpus_bytes_max = 512, corpus_inputs_max = 60;
constexpr char digits[] = "0123456789abcdef";

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::uint8_t* map_file(const std::string& path) {
  const int fd = path.empty() ? -1 : ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return nullptr;
  void* memory = MAP_FAILED;
  if (::ftruncate(fd, last_bytes) == 0)
    memory = ::mmap(nullptr, last_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  return memory == MAP_FAILED ? nullptr : static_cast<std::uint8_t*>(memory);
}

}  // namespace

std::string hex(ByteView bytes) {
  std::string text;
  for (const auto byte : bytes) {
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

std::string corpus_file(const std::string& target) { return "tests/corpus/" + target + ".txt"; }

std::vector<Bytes> read_corpus(const std::string& file) {
  std::vector<Bytes> inputs;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with('#')) continue;
    Bytes bytes;
    for (std::size_t i = 0; i + 1 < line.size(); i += 2)
      bytes.push_back(std::uint8_t(std::stoul(line.substr(i, 2), nullptr, 16)));
    inputs.push_back(std::move(bytes));
  }
  return inputs;
}

void write_corpus(const std::string& file, const std::vector<Bytes>& inputs) {
  std::ofstream out(file);
  for (const auto& input : inputs) out << hex(input) << '\n';
}

Campaign::Campaign(const Target& target, const std::string& last)
    : target_(target),
      rng_(mix64(target.name.size() + std::uint64_t(target.name[0]))),
      last_(map_file(last)) {
  Coverage::forget();
  for (int i = 0; i < seeds_drawn; ++i) pool_.push_back(target.seed(rng_));
}

Campaign::~Campaign() {
  if (last_ != nullptr) ::munmap(last_, last_bytes);
}

void Campaign::replay(const std::vector<Bytes>& inputs) {
  for (const auto& input : inputs) {
    one(input);
    pool_.push_back(input);
  }
}

void Campaign::run(const Budget& budget) {
  const auto began = now_s();
  for (const auto& input : std::vector(pool_)) one(input);
  const auto until = runs_ + budget.runs;
  while (runs_ < until && !(expected_ && failed_)) {
    if (runs_ % 64 == 0 && now_s() - began > budget.seconds) break;
    const auto& from = pool_[rng_.below(pool_.size())];
    const auto& other = pool_[rng_.below(pool_.size())];
    const auto words = Coverage::available() ? Coverage::words() : std::vector<std::uint64_t>{};
    one(mutate(from, other, words, rng_));
  }
  seconds_ += now_s() - began;
}

void Campaign::one(const Bytes& input) {
  ++runs_;
  if (last_ != nullptr) {
    store_little(last_, std::uint64_t(input.size()));
    std::copy_n(input.begin(), std::min(input.size(), input_bytes_max), last_ + 8);
  }
  const auto failures = check::failures_so_far();
  Coverage::begin();
  target_.run(input);
  if (Coverage::end() > 0) remember(input);
  if (check::failures_so_far() == failures) return;
  failed_ = true;
  if (expected_) return check::forgive(failures);
  std::printf("  %s failed with %s\n", target_.name.c_str(), hex(input).c_str());
}

std::vector<Bytes> Campaign::small() const {
  auto found = kept_;
  std::erase_if(found, [](const Bytes& input) { return input.size() > corpus_bytes_max; });
  std::ranges::stable_sort(found, {}, &Bytes::size);
  if (found.size() > corpus_inputs_max) found.resize(corpus_inputs_max);
  return found;
}

void Campaign::remember(const Bytes& input) {
  pool_.push_back(input);
  kept_.push_back(input);
}

std::string Campaign::report() const {
  char text[200];
  std::snprintf(text, sizeof text, "%-14s %llu runs, %.0f per second", target_.name.c_str(),
                static_cast<unsigned long long>(runs_), double(runs_) / std::max(seconds_, 1e-9));
  std::string all = text;
  if (Coverage::available())
    all +=
        ", " + std::to_string(Coverage::edges()) + " edges, " + std::to_string(kept_.size()) + " inputs kept";
  return all;
}

}  // namespace pccl::fuzz
