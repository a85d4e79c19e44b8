#pragma once
// Where each block and slab of one capture stands, and who may do what next. Pure: no thread, no lock, no
// memory is touched; the capture calls it under the monitor's lock.
//
// A block is copied, then summed; a block without foreign regions is both at once. A slab goes to the sink
// when all its blocks are done. Blocks of open slabs come first, so that every slab that was taken is filled
// and given back, however few there are.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "staging/layout.hpp"

namespace pccl::staging {

// A part of a foreign region in one slab: its memory is filled by somebody else.
struct ForeignPart {
  std::size_t region = 0;
  std::uint64_t at = 0;  // in the region
  std::byte* memory = nullptr;
  std::uint64_t bytes = 0;
};

struct Job {
  enum class Kind : std::uint8_t {
    copy_and_sum,
    copy,  // what is not foreign
    sum,
  };
  Kind kind = Kind::copy;
  std::size_t block = 0;
  std::byte* memory = nullptr;  // of the block
};

class Board {
 public:
  // Memory for this slab of the file, or null.
  using Take = std::function<std::byte*(std::size_t)>;

  Board(const FileLayout& layout, const std::vector<bool>& foreign);

  // Something to do: in an open slab, or in the next one in file order if a slab is to be had.
  std::optional<Job> next(const Take& take);
  // To copy this block, if that is to do and there is memory for it.
  std::optional<Job> claim(std::size_t block, const Take& take);
  // The slab that is now complete, and to be given to the sink.
  std::optional<std::size_t> finish(const Job& job);

  // Every native byte of the block is copied; with `all` every foreign one too.
  bool is_copied(std::size_t block, bool all) const;
  bool is_being_copied(std::size_t block) const { return blocks_[block].state == State::copying; }
  bool has_memory(std::size_t block) const { return slabs_[layout_.slab_of(block)].memory != nullptr; }

  std::optional<ForeignPart> next_part(const Take& take);
  // False: it was not handed out, or is done already.
  bool part_done(std::size_t region, std::uint64_t at);

  // After the end of a capture: the slabs that nobody uses any more leave the board.
  std::vector<std::byte*> abandon();
  // The sink is through with it.
  std::byte* release(std::size_t slab);

  std::byte* memory(std::size_t slab) const { return slabs_[slab].memory; }
  bool is_staged() const { return slabs_left_ == 0; }
  bool is_released() const { return slabs_left_ == 0 && at_sink_ == 0; }
  std::size_t at_sink() const { return at_sink_; }
  bool has_waiting_parts();
  std::uint64_t staged_bytes() const { return staged_bytes_; }

 private:
  enum class State : std::uint8_t { untouched, copying, copied, summing, done };
  struct Block {
    State state = State::untouched;
    bool native = false;              // some of it
    std::uint32_t foreign_parts = 0;  // still to come
  };
  struct Slab {
    std::byte* memory = nullptr;
    std::uint32_t to_copy = 0;  // blocks that nobody has begun
    std::uint32_t left = 0;     // blocks that are not done
    std::uint32_t users = 0;    // jobs, and foreign parts that were handed out
    std::size_t next = 0;       // no block before it is untouched
    bool at_sink = false;
  };
  enum class PartState : std::uint8_t { waiting, handed, done };
  struct Part {
    ForeignPart where;
    std::size_t slab = 0;
    PartState state = PartState::waiting;
  };

  void add_parts(std::size_t region);
  void prepare_slabs();
  bool open(std::size_t slab, const Take& take);
  std::optional<std::size_t> slab_to_open();
  Job begin_copy(std::size_t block);
  std::optional<Job> next_in(std::size_t slab);
  void copied(std::size_t block);
  std::byte* memory_of(std::size_t block) const;
  template <class F> void for_blocks_of(const Part& part, F f);

  const FileLayout& layout_;
  std::vector<Block> blocks_;
  std::vector<Slab> slabs_;
  std::vector<std::size_t> open_;    // slabs with memory that are not complete
  std::vector<std::size_t> to_sum_;  // blocks whose last foreign part has come
  std::vector<Part> parts_;          // in file order
  std::size_t first_part_ = 0;       // none before it is waiting
  std::size_t first_unopened_ = 0;   // no slab before it wants opening
  std::size_t slabs_left_ = 0, at_sink_ = 0;
  std::uint64_t staged_bytes_ = 0;
};

}  // namespace pccl::staging
