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
  // Whether it is cheaper to keep the regions aside than to copy their block, or the only way now.
  bool sets_aside(const Small& group) const;
  void set_aside(Lock& lock);
  void set_aside(const Small& group);
  // Copies what it can. False: nothing was to be done now.
  bool pass(Lock& lock, Instant until);
  bool is_short_of_slabs() const;

  Capture& capture_;
  std::vector<Needed> needed_;
  std::vector<std::size_t> small_;  // regions
  std::vector<Small> groups_;
};

}  // namespace pccl::staging
