#pragma once
// One call of Capture::fence: what has to be copied before its regions may change. Lives on the caller's
// stack.

#include <vector>

#include "staging/capture.hpp"

namespace pccl::staging {

class Fence {
 public:
  Fence(Capture& capture, Capture::Regions regions);
  bool wait(Instant until);

 private:
  struct Needed {
    std::size_t block = 0;
    bool all = false;  // foreign regions, too
    bool operator<(const Needed& other) const {
      return block != other.block ? block < other.block : all > other.all;
    }
  };
  // Small regions that begin in one block: copied with it, or kept aside.
  struct Small {
    std::size_t block = 0;
    std::size_t first = 0, last = 0;  // in `small_`
    std::uint64_t bytes = 0;
  };

  void need(std::size_t region);
  void need_everything();
  void group_small();
  void tidy();  // no block twice

  // Copies what it can now. True: it did something, and gave up the lock meanwhile.
  bool pass(Lock& lock, Instant until);
  bool pass_large(Lock& lock, Instant until);
  bool pass_small(Lock& lock, Instant until);
  bool copy(std::size_t block, Lock& lock);
  // Whether all its regions are safe now.
  bool settle(const Small& group, Lock& lock, bool& worked);
  bool settle(std::size_t region, bool dense, Lock& lock, bool& worked);
  bool is_copied(std::size_t region) const;
  bool keep_aside(std::size_t region);
  bool is_short_of_slabs() const;

  Capture& capture_;
  std::vector<Needed> needed_;
  std::vector<std::size_t> small_;  // regions; 0: it is safe
  std::vector<Small> groups_;       // that are not
};

}  // namespace pccl::staging
