// Memory that is about to be read in many places far from each other, asked for in one go: lines come from
// memory a dozen at a time, where code that reads one after the other waits for each. No address can fault,
// not even one that is nobody's any more. Any thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace pccl {

class Prefetch {
 public:
  static constexpr std::uint64_t line_bytes = 64;
  static constexpr std::uint64_t object_bytes_max = 4096;  // more is no object

  void add(std::uint64_t address, std::uint64_t bytes) {
    if (bytes == 0) return;
    const std::uint64_t last = address + (bytes < object_bytes_max ? bytes : object_bytes_max) - 1;
    for (std::uint64_t line = address / line_bytes; line <= last / line_bytes; ++line) lines_.push_back(line);
  }
  void begin() const {
    for (const std::uint64_t line : lines_)
      __builtin_prefetch(reinterpret_cast<const void*>(line * line_bytes));
  }
  std::size_t lines() const { return lines_.size(); }

 private:
  std::vector<std::uint64_t> lines_;
};

}  // namespace pccl
