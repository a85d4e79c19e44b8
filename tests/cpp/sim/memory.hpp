// Symbolic memory: what a tensor holds is not numbers but whose contributions were added up there, element by
// element. So a contribution that is missing, doubled, or in the wrong place is seen whatever the values
// would have been.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "collective/layout.hpp"

namespace pccl::sim {

// A multiset of contributions: four bits of count for each of 16 processes.
using Value = std::uint64_t;
inline constexpr std::uint32_t processes_max = 15;
inline constexpr Value garbage = ~Value{0};
inline Value one(std::uint32_t process) { return Value{1} << (4 * process); }
Value add(Value a, Value b);  // garbage when either is, or when a count would overflow
std::string text(Value value);

// A run of elements with the same value.
struct Piece {
  std::uint64_t begin = 0, end = 0;
  Value value = 0;
  bool operator==(const Piece&) const = default;
};

// What a chunk holds: pieces without gaps. Positions are those in its tensor, so that a chunk put elsewhere
// is seen.
using Content = std::vector<Piece>;
Content filled(std::uint64_t begin, std::uint64_t end, Value value);
Content add(const Content& a, const Content& b);

class Tensor {
 public:
  Tensor() = default;
  Tensor(std::uint64_t count, Value value) : pieces_(filled(0, count, value)) {}
  Content read(std::uint64_t begin, std::uint64_t end) const;
  void write(std::uint64_t begin, std::uint64_t end, const Content& content);
  void fill(std::uint64_t begin, std::uint64_t end, Value value) {
    write(begin, end, filled(begin, end, value));
  }
  bool holds(Value value) const;  // everywhere
  std::string text() const;

 private:
  Content pieces_;
};

// The caller's tensors of one operation at one peer, and the undo copy of what an attempt has overwritten in
// them.
class Memory {
 public:
  Memory() = default;
  // `blocks`: of every tensor, whose shapes count one.
  Memory(const std::vector<TensorShape>& shapes, bool in_place, std::uint32_t process,
         std::uint32_t blocks = 1);

  void begin(std::uint32_t world);  // an attempt: nothing is kept, outputs and weights hold anything
  Content input(const Layout& layout, std::uint32_t chunk) const;
  Content output(const Layout& layout, std::uint32_t chunk) const;
  void write(const Layout& layout, std::uint32_t chunk, const Content& content);
  void scribble(const Layout& layout, std::uint32_t chunk);  // half-written
  void keep(const Layout& layout, std::uint32_t chunk);
  void restore();
  void lose();  // nothing was kept: it is to be made again

  bool in_place() const { return in_place_; }
  bool lost() const { return lost_; }
  bool input_intact() const;
  bool output_is(Value value) const;
  bool block_is(std::uint32_t block, Value value) const;  // of the output; nothing but garbage: not written
  std::string text() const;

 private:
  const Tensor& out(std::size_t tensor) const { return in_place_ ? input_[tensor] : output_[tensor]; }

  bool in_place_ = false, lost_ = false;
  std::uint32_t process_ = 0, blocks_ = 1;
  std::vector<std::uint64_t> counts_;  // of one block
  std::vector<Tensor> input_, output_;
  Tensor weights_;
  std::vector<std::pair<std::uint32_t, Content>> kept_;
};

}  // namespace pccl::sim
