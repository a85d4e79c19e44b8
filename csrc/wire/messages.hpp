// THE protocol: every control message as a list of fields. Codec, bounds, fuzzers and printing are derived
// from it.
#pragma once
#include <variant>

#include "wire/between_peers.hpp"
#include "wire/on_one_host.hpp"
#include "wire/to_master.hpp"
#include "wire/to_peer.hpp"

namespace pccl {

using ToMaster = std::variant<Join, Register, Heartbeat, Reachable, Done, Broken, LinkLost, Waiting,
                              EnterBoundary, Abandon, Leave, StateOffer, LinkReport, Probed, Figures>;
using ToPeer = std::variant<Welcome, Refused, Prove, ViewMessage, Commit, Failed, Passed, Evicted, Missing,
                            Pulse, StatePlan, Suspended, Probe>;
using BetweenPeers =
    std::variant<LinkHello, Ready, BlockRequest, BlockFailed, StripeLost, Received, HostHello, HostAnswer,
                 SegmentAt, SegmentGone, ChunkAt, ChunksTaken, BlockAt>;

}  // namespace pccl
