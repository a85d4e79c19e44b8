// A few bytes of each of many tensors, taken at two moments and compared: whether somebody wrote between
// them. Whose memory it is holds it meanwhile. Any thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace pccl::staging {

class Glimpses {
 public:
  struct Place {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
  };
  explicit Glimpses(std::vector<Place> places) : places_(std::move(places)) {}
  std::size_t size() const { return places_.size(); }

  // Of places [first, last), which are there: one after the other, into bytes(first, last) bytes.
  std::size_t bytes(std::size_t first, std::size_t last) const {
    std::size_t count = 0;
    for (std::size_t place = first; place < last; ++place) count += places_[place].bytes;
    return count;
  }
  void take(std::size_t first, std::size_t last, char* into) const {
    for (std::size_t place = first; place < last; ++place) {
      std::memcpy(into, reinterpret_cast<const void*>(places_[place].address), places_[place].bytes);
      into += places_[place].bytes;
    }
  }

 private:
  std::vector<Place> places_;
};

}  // namespace pccl::staging
