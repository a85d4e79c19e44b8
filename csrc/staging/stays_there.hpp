#pragma once
// The sink of a pool in place: what was copied stays where it is, and that memory is its file.

#include "staging/sink.hpp"

namespace pccl::staging {

class StaysThere final : public Sink {
 public:
  void write(std::uint64_t, const std::byte*, std::size_t, Release release) override { release({}); }
};

}  // namespace pccl::staging
