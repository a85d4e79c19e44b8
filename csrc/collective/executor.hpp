// Runs any plan, purely: a chunk arrived -> what to compute, what to send next. It knows places, never
// addresses. One executor is one attempt of one operation; a new attempt is a new executor. Owned by the
// session's thread.
#pragma once
#include <map>
#include <optional>
#include <queue>
#include <vector>

#include "collective/layout.hpp"
#include "collective/plan.hpp"
#include "kernels/quantize.hpp"

namespace pccl {

// Where bytes of an operation lie. A slot is a chunk-sized buffer of the runtime, hot in the cache.
enum class Place : std::uint8_t { input, output, slot };
using SlotId = std::uint32_t;
inline constexpr SlotId no_slot = UINT32_MAX;

// Where an arriving chunk goes; a signal has no bytes. `keep`: the output's old bytes are the caller's input
// and must be kept first.
struct Landing {
  enum class Kind : std::uint8_t { skip, park, slot, output, signal } kind = Kind::skip;
  bool keep = false;
};

// One piece of arithmetic. The runtime does it before anything else happens to the operation.
struct Work {
  std::uint16_t step = 0;
  std::uint32_t chunk = 0;
  SlotId slot = no_slot;  // holds what arrived, and afterwards the outcome if it is to be sent from there
  Merge merge = Merge::reduce;
  bool to_output = false;
  bool keep = false;
  bool to_slot = false;    // the outcome is needed in the slot (it is sent from there)
  bool free_slot = false;  // the slot is not needed any more
  // Of a fold, in the order of addition; no_slot: the own input. All but `slot` are free afterwards.
  std::vector<SlotId> parts{};
};

struct ChunkSend {
  std::uint32_t position = 0;  // receiver
  std::uint16_t own_step = 0;
  std::uint16_t step = 0;  // the receiver's step
  std::uint32_t chunk = 0;
  std::uint32_t bytes = 0;
  Place place = Place::input;
  SlotId slot = no_slot;
  bool scale_own = false;  // the input leaves as accumulators, multiplied by the peer's weight
  bool encode = false;     // the input leaves quantized
};

class Executor {
 public:
  struct Options {
    bool in_place = false;  // output is the input's memory
    bool eager = false;     // may send before the receiver said READY
    bool weighted = false;
    std::uint32_t slots_max =
        64;  // beyond it, what can be sent from the output is, so that memory stays bounded
    std::uint32_t window = 16;  // chunks of a segment that may be on their way where the plan has a gate
    kernels::BlockCode code{};  // of what travels quantized
    // Of the own input that belongs into the output, so much is copied before something else gets its turn.
    std::uint64_t own_bytes = 4u << 20;
  };
  Executor(Plan plan, Layout layout, Options options);

  // Both do a part of copying the own input where it belongs into the output, which may be much. True: there
  // is more for copy_own() to do.
  bool start(std::vector<Work>& work);
  bool copy_own(std::vector<Work>& work);
  void on_ready(std::uint32_t position) { ready_.at(position) = true; }
  // It may be sent so many bytes, and what is left of a chunk, before it said READY.
  void give_head_start(std::uint32_t position, std::uint64_t bytes) { head_start_.at(position) = bytes; }
  // What the sender with this position may put where; skip when the chunk is not expected (or came already).
  Landing land(std::uint32_t from, std::uint16_t step, std::uint32_t chunk, std::uint32_t bytes);
  void arrived(std::uint16_t step, std::uint32_t chunk, SlotId slot, std::vector<Work>& work);
  // Parts that a collecting step's sum still waits for; 0: the step collects nothing.
  std::size_t parts_missing(std::uint16_t step, std::uint32_t chunk) const;
  void unland(std::uint16_t step, std::uint32_t chunk);  // what was arriving broke off: it comes again
  bool sendable(std::uint32_t position) const;
  // The output holds the bytes of a slot that is sent, and keeps them.
  bool in_output(const ChunkSend& send) const;
  std::optional<ChunkSend> next(std::uint32_t position);
  bool sent(const ChunkSend& send, std::vector<Work>& work);  // true: its slot is free again
  bool complete() const { return missing_ == 0; }
  bool owns(SlotId slot) const { return slot_users_.contains(slot); }

  const Plan& plan() const { return plan_; }
  const Layout& layout() const { return layout_; }
  const kernels::BlockCode& code() const { return options_.code; }
  std::uint32_t chunk_bytes(std::uint32_t chunk, Wire wire) const;
  std::vector<std::uint32_t> sources() const;  // positions that send to us
  std::vector<std::uint32_t> targets() const;

 private:
  enum class Chunkstate : std::uint8_t { expected, arriving, arrived };
  // On its way: what has been received, and is sent on as it is or as a sum.
  struct Pending {
    std::uint16_t step;
    std::uint32_t chunk;
    Place place;
    SlotId slot;
    std::size_t hop;
    // What is furthest on its way leaves first: it is still in the cache, and its slot comes back.
    bool operator<(const Pending& other) const {
      return step != other.step ? step < other.step : chunk > other.chunk;
    }
  };
  // The own input, chunk by chunk; it starts its way when nothing is to be sent on.
  struct Source {
    std::uint16_t step;
    std::size_t hop;
    std::uint32_t next = 0;  // chunk of the segment
  };
  struct Target {
    std::priority_queue<Pending> moving;
    std::vector<Source> sources;
  };
  void forward(std::uint16_t step, std::uint32_t chunk, Place place, SlotId slot);
  void merge(std::uint16_t step, std::uint32_t chunk, SlotId slot, std::vector<Work>& work);
  void decode(std::uint16_t step, std::uint32_t chunk, SlotId slot, std::vector<Work>& work);
  void collect(std::uint16_t step, std::uint32_t chunk, SlotId slot, std::vector<Work>& work);
  void fold_if_due(std::uint16_t step, std::uint32_t chunk, std::vector<Work>& work);
  void fold(std::uint16_t step, std::uint32_t chunk, std::vector<SlotId> parts, std::vector<Work>& work);
  void part(std::uint16_t step, std::uint32_t chunk, SlotId slot, std::vector<Work>& work);
  bool gate_open(const Source& source) const;
  Source* next_source(Target& target);
  Pending take(Target& target);
  ChunkSend send_of(std::uint32_t position, const Pending& pending) const;
  bool take_keep(std::uint32_t chunk);
  Chunkstate& state(std::uint16_t step, std::uint32_t chunk);

  Plan plan_;
  Layout layout_;
  Options options_;
  std::vector<std::vector<Chunkstate>> state_;  // [step][chunk of its segment]
  std::vector<std::uint32_t> arrived_;          // [step]: chunks that have
  // [chunk], in place: the caller's bytes are in the undo copy; sends of the caller's bytes that are to come
  std::vector<bool> kept_;
  std::vector<std::uint32_t> unsent_;
  struct Parts {
    std::vector<SlotId> slots;
    std::size_t missing = 0;
  };
  std::map<std::pair<std::uint16_t, std::uint32_t>, Parts> parts_;  // by fold and chunk
  std::vector<bool> ready_;                                         // [position]
  std::vector<std::uint64_t> head_start_;                           // [position]: what is left of it
  std::map<std::uint32_t, Target> targets_;                         // by receiver
  std::map<SlotId, std::uint32_t> slot_users_;
  struct Held {
    std::uint16_t step;
    std::uint32_t chunk;
    SlotId slot;
  };
  std::vector<Held> held_;  // finished sums that wait for the weights
  struct Own {
    std::uint16_t step;
    std::uint32_t chunk, end;
  };
  std::vector<Own> uncopied_;  // the last one first
  bool started_ = false;
  std::uint64_t missing_ = 0;  // chunks that must still arrive, be added up or be copied
  std::uint64_t weights_missing_ = 0;
};

}  // namespace pccl
