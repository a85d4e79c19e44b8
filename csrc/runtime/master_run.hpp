// One of the runs that a master serves: its protocol, and its questions whether somebody still listens.
// Owned by the master's I/O thread.
#pragma once
#include "protocol/master.hpp"
#include "runtime/knocker.hpp"

namespace pccl {

struct MasterRun {
  MasterRun(std::string run_name, MasterConfig config, Hub& hub, const net::Secret& secret, Instant now)
      : name(std::move(run_name)),
        master(std::move(config), now),
        knocker(hub, secret, [this](PeerId peer) { master.on_refused(peer, monotonic_now()); }) {}

  Instant next_deadline() const { return std::min(master.next_deadline(), knocker.next_deadline()); }
  void tick(Instant now) {
    if (now >= master.next_deadline()) master.tick(now);
    knocker.tick(now);
  }
  // Nobody is in it, on the way out, or expected back.
  bool over() const { return connections == 0 && master.peers() == 0 && !master.listening(); }

  std::string name;  // empty: the one that is there as long as the process
  Master master;
  Knocker knocker;
  std::size_t connections = 0;
  bool awaited = false;  // listens for those of its last view
  bool kept = false;     // the store may have a record of it
};

}  // namespace pccl
