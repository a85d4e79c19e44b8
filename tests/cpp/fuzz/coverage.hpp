// Which edges of the program an input takes, where it was compiled to tell (`build_tests --sanitize
// coverage`).
#pragma once
#include <cstdint>
#include <vector>

namespace pccl::fuzz {

class Coverage {
 public:
  static bool available();
  static void forget();                       // all ways are new again
  static void begin();                        // of one input
  static std::size_t end();                   // how many edges were new, or taken more often than ever
  static std::size_t edges();                 // seen so far
  static std::vector<std::uint64_t> words();  // that something was compared with lately
};

}  // namespace pccl::fuzz
