// Data links between simulated processes: two stripes, in order on each, frames read from memory when they
// leave. Each end learns of a loss at its own time, or never.
#pragma once
#include <array>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "runtime/exchange.hpp"
#include "sim/memory.hpp"

namespace pccl::sim {

class World;
class Process;
struct Fetch;

inline constexpr std::uint32_t stripes = 2;
using LinkIndex = std::uint32_t;

// One stripe of a link in one direction: that of the end that sends.
struct Lane {
  LinkIndex link = 0;
  std::uint16_t side = 0, stripe = 0;
};

// A frame or a READY between its sender's kernel and the receiver.
struct Flying {
  std::optional<Ready> ready;
  wire::DataHeader header;
  Content content;
  bool begun = false;
};

// What a stripe is receiving: its header has come, its last byte has not.
struct Incoming {
  wire::DataHeader header;
  AttemptId attempt = 0;
  Landing landing;
  SlotId slot = no_slot;
};

struct LinkEnd {
  enum class State : std::uint8_t { coming, up, closed };
  Process* process = nullptr;
  State state = State::coming;
  std::array<std::deque<Outgoing>, stripes> outbox;
  std::array<std::deque<Flying>, stripes> flying;  // that this end has sent
  std::array<Instant, stripes> busy_until{};       // no later frame of the stripe arrives before
  std::array<std::optional<Incoming>, stripes> incoming;
  std::size_t queued() const { return outbox[0].size() + outbox[1].size(); }
};

struct Link {
  std::array<LinkEnd, 2> ends;  // the dialler's first
  bool broken = false;          // nothing that is sent now arrives
  std::uint16_t side_of(const Process* process) const { return ends[0].process == process ? 0 : 1; }
  bool joins(const Process* process) const {
    return ends[0].process == process || ends[1].process == process;
  }
};

class Links {
 public:
  explicit Links(World& world) : world_(world) {}

  // What a process asks for.
  void dial(Process& from, PeerId to, const std::vector<Address>& addresses);
  void hang_up(Process& from, PeerId to);
  void send_ready(Process& from, PeerId to, const Ready& ready);
  void pull(Process& from, PeerId to);
  void ask(Fetch fetch);  // a donor of shared state, for one entry
  void detach(Process& from, const OpKey& key);
  void forget_incoming(Process& at, const OpKey& key);

  // What happens to it.
  void lose(LinkIndex link, bool first_learns, bool second_learns);
  void process_ended(Process& process, bool silent);
  std::vector<LinkIndex> up() const;
  Link& at(LinkIndex link) { return *links_[link]; }

 private:
  void arrive_dial(Process& from, PeerId to, std::uint32_t address, std::uint64_t serial);
  void fail_dial(Process& from, PeerId to, std::uint64_t serial, bool refused, const char* why,
                 Duration after);
  void establish(Process& from, Process& to);
  void raise(LinkIndex link, std::uint16_t side);
  void learn(LinkIndex link, std::uint16_t side, const char* why);
  void transmit(Lane lane);
  void bring(const Fetch& fetch);
  void fly(Lane lane, Flying flying);
  void begin(Lane lane);
  void finish(Lane lane);
  bool heard(Lane lane) const;
  void note(Lane lane, const Flying& flying, const std::optional<Incoming>& incoming);
  LinkEnd& sender(Lane lane) { return links_[lane.link]->ends[lane.side]; }
  LinkEnd& receiver(Lane lane) { return links_[lane.link]->ends[1u - lane.side]; }
  void cut(Link& link);

  World& world_;
  std::vector<std::unique_ptr<Link>> links_;
};

}  // namespace pccl::sim
