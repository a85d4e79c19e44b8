// What one position of an operation has instead of memory: every sum is an expression, so that who is in it,
// how often and in which order is plain to see. A Store for executor_network.hpp.
#pragma once
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "executor_network.hpp"
#include "tensor_shapes.hpp"

namespace pccl::check {

inline std::string numbered(const char* what, std::uint64_t number) {
  std::string text = what;
  text += std::to_string(number);
  return text;
}

// The bytes of one chunk: an expression, and whether they are elements or accumulators.
struct Symbol {
  std::string text;
  Wire wire = Wire::element;
  bool operator==(const Symbol&) const = default;
};

class SymbolicStore {
 public:
  SymbolicStore(const Layout& layout, std::uint32_t position, bool in_place, bool weighted)
      : position_(position), in_place_(in_place), weighted_(weighted), kept(layout.chunks()) {
    for (std::uint32_t c = 0; c < layout.chunks(); ++c)
      input_.push_back(numbered(layout.hidden(c) ? "w" : "x", position));
    output_.assign(layout.chunks(), {});
    if (in_place)
      for (std::uint32_t c = 0; c < layout.chunks(); ++c)
        if (!layout.hidden(c)) output_[c] = {input_[c], Wire::element};
  }

  Symbol read(const Executor& executor, const ChunkSend& send) const {
    const auto& step = executor.plan().steps[send.own_step];
    if (send.place == Place::output) return output_[send.chunk];
    if (send.place == Place::slot) {
      CHECK(slots_.contains(send.slot));
      return slots_.at(send.slot);
    }
    const auto input = own(executor.layout(), send.chunk);
    if (!send.scale_own) return {input, Wire::element};
    CHECK_EQ(step.out, Wire::accumulator);
    return {weighted_ ? scaled(input) : input, Wire::accumulator};
  }

  SlotId prepare(const Executor& executor, const ChunkSend& send, const Landing& landing) {
    if (landing.kind == Landing::Kind::slot) {
      CHECK(!landing.keep);
      slots_[++last_slot_] = {"half written", Wire::element};
      slots_most = std::max(slots_most, slots_.size());
      return last_slot_;
    }
    if (landing.keep) keep(send.chunk);
    write(executor, send.chunk, {"half written", Wire::element});
    return no_slot;
  }

  void put(const Executor& executor, const ChunkSend& send, SlotId slot, const Symbol& symbol) {
    if (slot != no_slot)
      slots_.at(slot) = symbol;
    else
      write(executor, send.chunk, symbol);
  }

  void give(SlotId slot) { CHECK_EQ(slots_.erase(slot), 1); }

  void run(const Executor& executor, const Work& work) {
    const auto& layout = executor.layout();
    const auto& step = executor.plan().steps[work.step];
    if (work.merge == Merge::own) {
      CHECK(work.to_output && !work.keep && work.slot == no_slot);
      if (in_place_ && !layout.hidden(work.chunk)) return;  // it is there already
      return write(executor, work.chunk, {own(layout, work.chunk), Wire::element});
    }
    REQUIRE(slots_.contains(work.slot));
    if (work.merge == Merge::fold) return fold(executor, work);
    const auto incoming = slots_.at(work.slot);
    const bool half = is_half(layout.chunk(work.chunk).dtype);
    CHECK_EQ(incoming.wire, step.in);
    const auto mine = own(layout, work.chunk);
    Symbol sum{std::string("(") + incoming.text + "+" + (weighted_ ? scaled(mine) : mine) + ")", step.out};
    if (step.finish) sum.text = finished(executor, sum.text);
    if (half && step.out == Wire::element) sum.text = std::string("round ") + sum.text;
    if (work.keep) keep(work.chunk);
    if (work.to_output) {
      CHECK(step.write || !in_place_);            // a partial sum never takes the place of an input
      CHECK(!half || step.out == Wire::element);  // it would not fit
      write(executor, work.chunk, sum);
    }
    CHECK_EQ(work.to_slot, !work.free_slot);
    CHECK(work.to_slot || work.to_output);
    if (work.to_slot)
      slots_.at(work.slot) = sum;
    else
      give(work.slot);
  }

  const std::vector<Symbol>& output() const { return output_; }
  bool slots_free() const { return slots_.empty(); }
  std::size_t slots_most = 0;

 private:
  void fold(const Executor& executor, const Work& work) {
    const auto& layout = executor.layout();
    const auto& step = executor.plan().steps[work.step];
    CHECK_EQ(step.finish, work.to_output);
    CHECK_EQ(step.finish, step.out == Wire::element);
    std::string sum;
    for (std::size_t i = 0; i < work.parts.size(); ++i) {
      const auto [from, wire] = part_of(executor.plan(), step, i);
      auto part = work.parts[i] == no_slot ? own(layout, work.chunk) : slots_.at(work.parts[i]).text;
      if (weighted_ && wire == Wire::element) part = numbered("w", from) + "*" + part;
      sum = i == 0 ? part : std::string("(") + sum + "+" + part + ")";
      if (work.parts[i] != no_slot) CHECK_EQ(slots_.at(work.parts[i]).wire, wire);
    }
    if (step.finish) sum = finished(executor, sum);
    if (step.finish && is_half(layout.chunk(work.chunk).dtype)) sum = std::string("round ") + sum;
    for (const auto slot : work.parts)
      if (slot != no_slot && (slot != work.slot || work.free_slot)) give(slot);
    if (work.keep) keep(work.chunk);
    if (work.to_output) write(executor, work.chunk, {sum, step.out});
    if (work.to_slot) slots_.at(work.slot) = {sum, step.out};
  }
  std::string own(const Layout& layout, std::uint32_t chunk) const {
    return in_place_ && !layout.hidden(chunk) ? output_[chunk].text : input_[chunk];
  }
  std::string scaled(const std::string& text) const { return numbered("w", position_) + "*" + text; }
  std::string finished(const Executor& executor, const std::string& sum) const {
    if (!weighted_) return sum;
    const auto& layout = executor.layout();
    std::string total;
    for (std::uint32_t c = 0; c < layout.chunks(); ++c)
      if (layout.hidden(c)) total += output_[c].text;
    return sum + "/" + total;
  }
  void keep(std::uint32_t chunk) {
    CHECK(in_place_);
    CHECK_EQ(output_[chunk].text, input_[chunk]);  // before anything else is there
    ++kept[chunk];
  }
  void write(const Executor& executor, std::uint32_t chunk, Symbol symbol) {
    if (in_place_ && !executor.layout().hidden(chunk)) CHECK_EQ(kept[chunk], 1);
    output_[chunk] = std::move(symbol);
  }

  std::uint32_t position_;
  bool in_place_, weighted_;
  std::vector<std::string> input_;
  std::vector<Symbol> output_;
  std::map<SlotId, Symbol> slots_;
  SlotId last_slot_ = 0;

 public:
  std::vector<int> kept;
};

using SymbolicNetwork = check::Network<SymbolicStore, Symbol>;

}  // namespace pccl::check
