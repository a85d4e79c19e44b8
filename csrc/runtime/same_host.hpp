// Which peers of this host can take whose chunks from where they lie: probing, agreement per link and
// direction, segments shown and mapped. It decides and reads memory, and sends nothing itself. Owned by the
// I/O thread.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "net/handshake.hpp"
#include "runtime/foreign_memory.hpp"
#include "runtime/shared_memory.hpp"
#include "wire/messages.hpp"

namespace pccl {

// "auto": all ways. A name restricts: that way where it works, else TCP. Nothing: unknown.
std::optional<LocalWays> ways_of_transport(const std::string& name);
std::string name_of_ways(LocalWays ways);  // "tcp", "cma", "shm", "shm+cma"

class SameHost {
 public:
  // `label`: peers of different labels keep apart, also on one host.
  SameHost(LocalWays allowed, const std::string& label);

  // ---- agreement ----
  std::optional<HostHello> hello() const;  // none: this peer goes by TCP only
  HostAnswer on_hello(PeerId peer, const HostHello& hello);
  void on_answer(PeerId peer, const HostAnswer& answer);
  void link_lost(PeerId peer) { neighbours_.erase(peer); }
  LocalWays ways(PeerId peer) const;  // in which the peer takes our chunks
  // What a peer of this host offered in vain: for people. Told once of each peer.
  LocalWays lacking(PeerId peer);

  // ---- giving ----
  // Where the peer finds these bytes; `show`: a segment that it must hear of first. Nothing: send them.
  struct Offer {
    std::uint32_t segment = 0;
    std::uint64_t at = 0;
    std::optional<SegmentAt> show;
  };
  std::optional<Offer> offer(PeerId peer, const std::uint8_t* data, std::size_t bytes);
  // Whether the peer reads so many bytes where they are, in private memory too.
  bool may_read(PeerId peer, std::size_t bytes) const;
  void show_again(PeerId peer);               // what was said may have been lost
  void failing(PeerId peer, LocalWays ways);  // it could not take what was offered like this
  // Segments that are no more, for those who were shown them.
  std::vector<std::pair<PeerId, SegmentGone>> forgotten();

  // ---- taking ----
  bool on_segment(PeerId peer, const SegmentAt& shown);  // false: no honest peer shows so many
  void on_segment_gone(PeerId peer, const SegmentGone& gone);
  struct Mapped {
    const std::uint8_t* data = nullptr;
    std::shared_ptr<const void> keep;  // the mapping
  };
  struct Remote {
    int process = 0;
    std::uint64_t address = 0;
  };
  struct Unreachable {      // the bytes have to be sent
    LocalWays failing = 0;  // what will never work
  };
  using Source = std::variant<Unreachable, Mapped, Remote>;
  Source locate(PeerId peer, const ChunkAt& chunk) const;

 private:
  struct Neighbour {
    LocalWays takes = 0;  // of ours
    LocalWays shows = 0;  // of its own, that we can take
    LocalWays vain = 0;   // offered by it, and not possible
    int process = 0;
    std::set<std::uint32_t> shown;                                          // of our segments
    std::map<std::uint32_t, std::shared_ptr<const ForeignSegment>> mapped;  // of its; null: it cannot be
  };

  LocalWays allowed_;
  std::string host_;
  std::unique_ptr<net::Nonce> token_;  // on the heap: it stays where the hello says
  std::unique_ptr<Door> door_;
  std::map<PeerId, Neighbour> neighbours_;
  std::set<PeerId> told_;
};

}  // namespace pccl
