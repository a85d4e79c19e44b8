// Peers, links and connections that fail, as stories: what breaks, and what everybody then says. Commands are
// explained in script.hpp.
#include "script.hpp"

using pccl::sim::plays;

TEST(kill_during_all_reduce) {
  plays(R"(
    peers 3
    all_reduce on 1,2
    kill on 3
    > m1: view 2 of 2 peers: peer 3 is gone (its connections broke: connection reset)
    > p1,p2 aborts call 0 of group 0
    > p1,p2 view 0.2[p1,p2]
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
  )");
}

TEST(kill_during_all_reduce_that_must_not_be_retried) {
  plays(R"(
    peers 3
    all_reduce on 1,2 on_loss=raise
    kill on 3
    > m1: view 2 of 2 peers: peer 3 is gone (its connections broke: connection reset)
    > p1,p2 aborts call 0 of group 0
    > p1,p2 view 0.2[p1,p2]
    > p1,p2 delivers call 0 of group 0: peer 3 left during all_reduce, call 0 of group 0; ...: call it again
  )");
}

// Also where all are still there, and for a peer that had not come to it yet.
TEST(an_input_that_is_not_kept_is_asked_for_again) {
  plays(R"(
    peers 3
    all_reduce on 1,2 on_loss=remake
    break link 1-2
    > m1: view 2 of 3 peers: the link between peers 1 and 2 broke: ...; ... 2 and 1 broke: ...
    > p1,p2 aborts call 0 of group 0
    > p1,p2,p3 view 0.2[p1,p2,p3]
    > p1,p2 delivers call 0 of group 0: a connection broke during all_reduce, call 0 of group 0; make ...
    all_reduce on 3 on_loss=remake
    > p3 delivers call 0 of group 0: a connection broke during all_reduce, call 0 of group 0; make ...
    all_reduce on 1,2,3 on_loss=remake
    > p1,p2,p3 delivers call 1 of group 0: p1,p2,p3, waiting 0
    all_reduce on 1,2 on_loss=remake
    kill on 3
    > m1: view 3 of 2 peers: peer 3 is gone (its connections broke: connection reset)
    > p1,p2 aborts call 2 of group 0
    > p1,p2 view 0.3[p1,p2]
    > p1,p2 delivers call 2 of group 0: peer 3 left during all_reduce, call 2 of group 0; make the inputs ...
  )");
}

TEST(withdrawal_while_the_master_is_out_of_reach) {
  plays(R"(
    peers 3
    update_topology on 1,2
    cut on 1
    leave_boundary on 1
    after 300ms
    update_topology on 3
    > p2,p3 passes boundary 1
    mend on 1
    > p1 passes boundary 1
    update_topology on 1
    cut on 1
    leave_boundary on 1
    mend on 1
    > p1 fails at the boundary: the caller left update_topology
  )");
}

TEST(broken_link_with_the_same_members) {
  plays(R"(
    peers 3
    all_reduce on 1,2
    break link 1-2
    > m1: view 2 of 3 peers: the link between peers 1 and 2 broke: ...; ... 2 and 1 broke: ...
    > p1,p2 aborts call 0 of group 0
    > p1,p2,p3 view 0.2[p1,p2,p3]
    all_reduce on 3
    > p1,p2,p3 delivers call 0 of group 0: p1,p2,p3, waiting 0
  )");
}

TEST(half_open_link) {
  plays(R"(
    peers 3
    all_reduce on 1,2
    break half 1-2
    > m1: view 2 of 3 peers: the link between peers 1 and 2 broke: connection reset
    > p1,p2 aborts call 0 of group 0
    > p1,p2,p3 view 0.2[p1,p2,p3]
    > m1: view 3 of 3 peers: the link between peers 2 and 1 broke: the other end opened it anew
    > p1,p2,p3 view 0.3[p1,p2,p3]
    all_reduce on 3
    > p1,p2,p3 delivers call 0 of group 0: p1,p2,p3, waiting 0
  )");
}

TEST(an_island_is_removed_whole) {
  plays(R"(
    islands 2x2
    all_reduce on 1,2,3
    > p1,p3 delivers call 0 of group 0: p1,p3, waiting 0
    kill on 4
    > m1: view 2 of 2 peers: peer 4 is gone (its connections broke: connection reset)
    > p3 is gone: the run goes on without this peer: peer 4 is gone (its connections broke: ...); call rejoin() ...
    > p1,p2 view 0.2[p1,p2]
    > p2 aborts call 0 of group 1
    > p2 delivers call 0 of group 1: p2, waiting 0
  )");
}

TEST(joiner_that_cannot_be_reached) {
  plays(R"(
    peers 2
    join unreachable
    update_topology on 1,2
    > p1,p2 passes boundary 1
    after 6s
    > p3: not in the run yet: its links to the members are being tried
    > p3 is gone: peer 3 cannot open the links that it needs: peer 2 at sim:2: timed out
  )");
}

TEST(silent_peer) {
  plays(R"(
    peers 3
    all_reduce on 1,2
    silence on 3
    after 1s
    > m1: all_reduce, call 0 of group 0 waits for peer 3 (late to post...)
    > p1,p2: waiting in all_reduce, call 0 of group 0 for peer 3 (island peer-3): late to post...
    after 2s
    > m1: view 2 of 2 peers: peer 3 was silent for 2 s (heartbeats_missed_max=4)
    > p1,p2 aborts call 0 of group 0
    > p1,p2 view 0.2[p1,p2]
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
  )");
}

TEST(operation_deadline) {
  plays(R"(
    option deadline=3s
    peers 3
    oversleep on 3
    all_reduce on 1,2,3
    after 2s
    after 3s
    > m1: view 2 of 2 peers: peer 3 was evicted: it did not finish call 0 ...
    > p1,p2,p3 aborts call 0 of group 0
    > p3 delivers ...: the run goes on without this peer: peer 3 was evicted: it did not finish call 0 ...
    > p3 is gone: the run goes on without this peer: peer 3 was evicted: it did not finish call 0 ...
    > p1,p2 view 0.2[p1,p2]
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
  )");
}

TEST(peer_leaves) {
  plays(R"(
    peers 3
    all_reduce on 1,2
    leave on 3
    > p3 is gone: this peer has left the run
    > m1: view 2 of 2 peers: peer 3 left
    > p1,p2 aborts call 0 of group 0
    > p1,p2 view 0.2[p1,p2]
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
  )");
}

TEST(verdict_after_a_reconnection) {
  plays(R"(
    peers 2
    oversleep on 2
    all_reduce on 1,2
    cut on 1
    wake on 2
    > p2 delivers call 0 of group 0: p1,p2, waiting 0
    mend on 1
    > p1 delivers call 0 of group 0: p1,p2, waiting 0
  )");
}

TEST(cut_off_for_too_long_while_it_holds_a_result) {
  plays(R"(
    peers 2
    oversleep on 2
    all_reduce on 1,2
    cut on 1
    after 2s
    wake on 2
    > m1: view 2 of 1 peers: peer 1 lost its connection and did not come back for 1500 ms
    > p2 aborts call 0 of group 0
    > p2 view 0.2[p2]
    > p2 delivers call 0 of group 0: p2, waiting 0
    mend on 1
    > p1 aborts call 0 of group 0
    > p1 delivers ...: this peer held the whole result, and whether the others took it is unknown: ...
    > p1 is gone: the run goes on without this peer: peer 1 lost its connection ...; call rejoin() ...
  )");
}
