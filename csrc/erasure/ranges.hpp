// Splits work on blocks by ranges of their bytes, one thread for each: nothing is shared between them.
#pragma once
#include <algorithm>
#include <cstddef>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace pccl::erasure {

// Ranges begin at multiples of a page, so that addresses within it are those of the whole blocks.
inline constexpr std::size_t range_align = 4096;
// A thread costs some 50 us to start: what a core does with so many bytes of each block meanwhile.
inline constexpr std::size_t range_min = 64 << 10;

// Whether so many written bytes go past the caches.
bool streams(std::size_t written);

inline std::size_t range_bytes(std::size_t bytes, std::size_t threads) {
  const std::size_t parts = std::clamp<std::size_t>(bytes / range_min, 1, std::max<std::size_t>(threads, 1));
  const std::size_t each = (bytes + parts - 1) / parts;
  return std::max<std::size_t>((each + range_align - 1) / range_align * range_align, range_align);
}

// body(part, first, count), the last part on this thread; where no thread can be had, more of them. What a
// body throws (memory is over) is thrown here, once all have ended.
template <class Body> void for_ranges(std::size_t bytes, std::size_t threads, const Body& body) {
  const std::size_t each = range_bytes(bytes, threads);
  const std::size_t others = bytes == 0 ? 0 : (bytes - 1) / each;
  std::vector<std::exception_ptr> thrown(others);
  {
    std::vector<std::jthread> running;
    running.reserve(others);
    for (std::size_t part = 0; part < others; ++part) {
      const auto run = [&, part] {
        try {
          body(part, part * each, each);
        } catch (...) {
          thrown[part] = std::current_exception();
        }
      };
      try {
        running.emplace_back(run);
      } catch (const std::system_error&) {
        run();
      }
    }
    body(others, others * each, bytes - others * each);
  }
  for (const auto& exception : thrown)
    if (exception) std::rethrow_exception(exception);
}

}  // namespace pccl::erasure
