// Memory of the packets that are on their way, used again and again. A buffer is named by its number.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace wan {

class Buffers {
 public:
  // About 200 MB at the usual MTU: 1 Gbit/s over 1.5 s.
  static constexpr std::size_t count_max = 1 << 17;

  explicit Buffers(std::size_t bytes) : bytes_(bytes) {}

  std::size_t bytes() const { return bytes_; }
  std::size_t left() const { return count_max - memory_.size() + free_.size(); }
  char* at(std::uint32_t number) { return memory_[number].get(); }

  // Nothing: too many packets are on their way.
  std::optional<std::uint32_t> take() {
    if (free_.empty()) {
      if (memory_.size() == count_max) return std::nullopt;
      memory_.push_back(std::make_unique<char[]>(bytes_));
      return static_cast<std::uint32_t>(memory_.size() - 1);
    }
    const std::uint32_t number = free_.back();
    free_.pop_back();
    return number;
  }
  void give_back(std::uint32_t number) { free_.push_back(number); }

 private:
  std::size_t bytes_;
  std::vector<std::unique_ptr<char[]>> memory_;
  std::vector<std::uint32_t> free_;
};

}  // namespace wan
