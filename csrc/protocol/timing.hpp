// How long the protocol waits for whom. Set by configuration, passed through constructors.
#pragma once
#include <algorithm>

#include "base/clock.hpp"

namespace pccl {

struct Timing {
  Duration heartbeat = 500 * millisecond;   // each side says that it lives
  int heartbeats_missed_max = 4;            // then it is lost
  Duration reconnect = 1500 * millisecond;  // a broken control connection may come back within this time
  Duration settle = 20 * millisecond;  // a lost link waits so long for news of a death, which explains it
  Duration redial = 2 * second;        // a link that cannot be opened for so long is broken for good
  Duration redial_every = 20 * millisecond;
  Duration prove = 5 * second;                     // a joiner opens its ring links within this time
  Duration waiting_notice = 1 * second;            // a caller waits longer: tell who is missing
  Duration waiting_answer = 150 * millisecond;     // who waits as long says so within this time
  Duration verdict = 5 * second;                   // from asking for a verdict to giving up on the master
  Duration master_lost = 30 * second;              // without the master for so long, operations fail
  Duration first_dial = 3 * second;                // nobody has ever answered: then the address is wrong
  Duration grace = 2 * second;                     // a restarted master listens before it speaks
  Duration late_registration = 200 * millisecond;  // and so long when all whom it knows of are back
  // Deadline of an operation that all members have posted: median + k * MAD of past ones, at least the floor.
  Duration deadline_floor = 30 * second;
  double deadline_k = 16;
  Duration straggler = 0;  // a minority that keeps all others waiting for so long is evicted; 0: never
  Duration link_report = 1 * second;          // a peer tells what it measured about links so often at most
  Duration links_settle = 200 * millisecond;  // reports come from all peers at about the same time
  Duration hints_hold = 5 * second;           // hints and orders that were told stay for so long at least

  // Data that nobody confirms for so long ends a data link: well above what heartbeats allow, since queues on
  // a slow way may hold seconds, and below what the kernel would do (minutes).
  Duration unacked_max() const {
    return std::clamp<Duration>(4 * heartbeat * heartbeats_missed_max, 4 * second, 20 * second);
  }
};

}  // namespace pccl
