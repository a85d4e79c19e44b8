// What the runtime does around an operation's memory, for one position: a Store for executor_network.hpp.
#pragma once
#include <cstring>

#include "base/bytes.hpp"
#include "check.hpp"
#include "runtime/operation_memory.hpp"

namespace pccl::check {

class RealStore {
 public:
  RealStore(OperationMemory& memory, SlotPool& slots) : memory_(&memory), slots_(&slots) {}

  Bytes read(const Executor& executor, const ChunkSend& send) {
    Bytes bytes(send.bytes);
    const auto& chunk = executor.layout().chunk(send.chunk);
    if (send.scale_own) {
      memory_->scale_own(executor, send.chunk, bytes.data());
      return bytes;
    }
    const auto* from = send.place == Place::slot     ? slots_->data(send.slot)
                       : send.place == Place::output ? memory_->output(chunk)
                                                     : memory_->input(chunk);
    if (!bytes.empty()) std::memcpy(bytes.data(), from, bytes.size());
    return bytes;
  }
  SlotId prepare(const Executor& executor, const ChunkSend& send, const Landing& landing) {
    const auto& chunk = executor.layout().chunk(send.chunk);
    if (landing.kind == Landing::Kind::slot) return slots_->take(1, chunk.element_bytes() * 2);
    if (landing.keep) memory_->keep(executor, send.chunk);
    std::memset(memory_->output(chunk), 0xdb, chunk.element_bytes());
    return no_slot;
  }
  void put(const Executor& executor, const ChunkSend& send, SlotId slot, const Bytes& bytes) {
    auto* to = slot != no_slot ? slots_->data(slot) : memory_->output(executor.layout().chunk(send.chunk));
    if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
  }
  void run(const Executor& executor, const Work& work) { CHECK(memory_->run(executor, work, *slots_)); }
  void give(SlotId slot) { slots_->give(slot); }

 private:
  OperationMemory* memory_;
  SlotPool* slots_;
};

}  // namespace pccl::check
