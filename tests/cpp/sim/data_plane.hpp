// What the runtime does with bytes, done with symbolic ones: slots, landings, parked frames, arithmetic,
// undo.
#pragma once
#include <map>
#include <optional>

#include "runtime/exchange.hpp"
#include "sim/links.hpp"
#include "sim/memory.hpp"

namespace pccl::sim {

class DataPlane {
 public:
  explicit DataPlane(Process& process) : process_(process) {}

  void own(const OpKey& key, Memory memory) { memories_[key] = std::move(memory); }
  Memory* memory(const OpKey& key);
  void forget(const OpKey& key) { memories_.erase(key); }

  void begin(const OpKey& key);
  void stop_using(const OpKey& key);  // no frame reads or writes the caller's memory from here on
  void run(const exchange_effect::Do& effect);
  void replay(ParkedId parked);
  void discard(ParkedId parked) { parked_.erase(parked); }

  Content read(const Outgoing& outgoing) const;
  void sent(const Outgoing& outgoing);
  std::optional<Incoming> land(PeerId from, const wire::DataHeader& header);
  void landed(PeerId from, const Incoming& incoming, Content content);

 private:
  struct Slot {
    AttemptId attempt;
    Content content;
  };
  struct Parked {
    PeerId from;
    wire::DataHeader header;
    Content content;
  };
  Content fold(const Work& work, const Content& own);
  Incoming prepare(const wire::DataHeader& header, const Landing& landing);
  void put(const Incoming& incoming, Content content);
  void offer_parked(PeerId from, const wire::DataHeader& header, Content content);

  Process& process_;
  std::map<OpKey, Memory> memories_;
  std::map<SlotId, Slot> slots_;
  SlotId next_slot_ = 1;
  std::map<ParkedId, Parked> parked_;
};

}  // namespace pccl::sim
