// Calls as stories: what peers ask for, and what everybody then says. Commands are explained in script.hpp.
#include "script.hpp"

using pccl::sim::plays;

TEST(join_at_a_boundary) {
  plays(R"(
    peers 2
    join
    all_reduce on 1,2
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 1
    update_topology on 1
    after 1200ms
    > p3: not in the run yet: members let newcomers in at their next update_topology()
    > m1: island peer-3 waits at the door for the members' next update_topology()
    > p1: waiting in update_topology for peer 2 (island peer-2)
    update_topology on 2
    > m1: view 2 of 3 peers: island peer-3 came in
    > p1,p2,p3 view 0.2[p1,p2,p3]
    > p1,p2 passes boundary 1
    all_reduce on 1,2,3
    > p1,p2,p3 delivers call 0 since boundary 1 of group 0: p1,p2,p3, waiting 0
    update_topology on 1,2,3
    > p1,p2,p3 skips a boundary after 1
  )");
}

TEST(nobody_waits_and_the_boundary_is_skipped) {
  plays(R"(
    peers 2
    all_reduce on 1,2
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
    update_topology on 1,2
    > p1,p2 skips a boundary after 0
    update_topology on 1
    update_topology on 2
    > p1,p2 passes boundary 1
  )");
}

TEST(boundary_with_an_operation_in_flight) {
  plays(R"(
    peers 2
    all_reduce on 1
    update_topology on 1
    > p1 may not: update_topology with an operation in flight (all_reduce, call 0 ...): wait for it first
    all_reduce on 2
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
  )");
}

TEST(mismatch) {
  plays(R"(
    peers 3
    all_reduce on 1,2 count=1000
    all_reduce on 3 count=2000
    > p1,p2,p3 aborts call 0 of group 0
    > p1,p2,p3 delivers ...: peer 3 calls all_reduce(...2000 x ...), peer 1 calls all_reduce(...1000 x ...) as call 0 ...
  )");
}

TEST(one_in_all_reduce_the_other_in_update_topology) {
  plays(R"(
    peers 2
    all_reduce on 1
    update_topology on 2
    after 1200ms
    > p1 aborts call 0 of group 0
    > p1 delivers ...: these calls can never meet: ... 1 ... all_reduce ...; ... 2 ... update_topology; ...
    > p2 fails at the boundary: these calls can never ... 1 ... all_reduce ...; ... 2 ... update_topology; ...
    all_reduce on 1,2
    > p1,p2 delivers call 1 of group 0: p1,p2, waiting 0
  )");
}

TEST(crossed_tags) {
  plays(R"(
    peers 2
    all_reduce on 1 tag=1
    all_reduce on 2 tag=2
    after 1200ms
    > p1 aborts tag 1 (use 0) of group 0
    > p1 delivers ...: these calls can never meet: peer 1 ... (tag 1 ...); peer 2 ... (tag 2 ...); ...
    > p2 aborts tag 2 (use 0) of group 0
    > p2 delivers ...: these calls can never meet: peer 1 ... (tag 1 ...); peer 2 ... (tag 2 ...); ...
    all_reduce on 1,2 tag=1
    all_reduce on 1,2 tag=2
    > p1,p2 delivers tag 1 (use 1) of group 0: p1,p2, waiting 0
    > p1,p2 delivers tag 2 (use 1) of group 0: p1,p2, waiting 0
  )");
}

TEST(another_call_that_moves_no_data) {
  plays(R"(
    peers 2
    all_reduce on 1
    barrier on 2
    > p1,p2 aborts call 0 of group 0
    > p1,p2 delivers call 0 ...: peer 2 calls barrier(), peer 1 calls all_reduce(...) as call 0 of group 0
    sync_state on 1
    all_reduce on 2
    after 1200ms
    > p1,p2 aborts call 1 of group 0
    > p1,p2 delivers call 1 ...: peer 1 calls sync_shared_state, peer 2 calls all_reduce as call 1 of group 0
  )");
}

TEST(cancel) {
  plays(R"(
    peers 3
    all_reduce on 1,2
    cancel on 2
    > p1,p2 aborts call 0 of group 0
    > p1,p2 delivers call 0 of group 0: p2 cancelled it
    all_reduce on 3
    > p3 delivers call 0 of group 0: p2 cancelled it
    all_reduce on 1,2,3
    > p1,p2,p3 delivers call 1 of group 0: p1,p2,p3, waiting 0
  )");
}

TEST(time_out_names_who_is_missing) {
  plays(R"(
    peers 3
    all_reduce on 1,2 timeout=1500ms
    after 1100ms
    > m1: all_reduce, call 0 of group 0 waits for peer 3 (late to post...)
    > p1,p2: waiting in all_reduce, call 0 of group 0 for peer 3 (island peer-3): late to post...
    after 500ms
    > p1,p2 aborts call 0 of group 0
    > p1,p2 delivers ...: peer 1 waited 1500 ms in all_reduce, call 0 of group 0; missing: peer 3
    all_reduce on 3
    > p3 delivers call 0 of group 0: peer 1 waited 1500 ms in all_reduce, call 0 of group 0; missing: peer 3
  )");
}

TEST(a_short_time_out_names_who_is_missing) {
  plays(R"(
    peers 3
    all_reduce on 1,2 timeout=300ms
    after 200ms
    after 200ms
    > m1: all_reduce, call 0 of group 0 waits for peer 3 (late to post...)
    > p1,p2: waiting in all_reduce, call 0 of group 0 for peer 3 (island peer-3): late to post...
    > p1,p2 aborts call 0 of group 0
    > p1,p2 delivers ...: peer 1 waited 300 ms in all_reduce, call 0 of group 0; missing: peer 3
    all_reduce on 3
    > p3 delivers call 0 of group 0: peer 1 waited 300 ms in all_reduce, call 0 of group 0; missing: peer 3
  )");
}

TEST(time_out_of_a_boundary) {
  plays(R"(
    peers 3
    update_topology on 1 timeout=1500ms
    update_topology on 2
    after 2s
    > p1,p2: waiting in update_topology for peer 3 (island peer-3)
    > p1 fails at the boundary: not all peers came to update_topology in time; missing: peer 3 (island peer-3)
    > p2: waiting in update_topology for peer 1 (island peer-1), peer 3 (island peer-3)
    update_topology on 3
    update_topology on 1
    > p1,p2,p3 passes boundary 1
  )");
}

TEST(withdrawal_in_time) {
  plays(R"(
    peers 2
    update_topology on 1
    leave_boundary on 1 &
    update_topology on 2
    > p1 fails at the boundary: the caller left update_topology
    update_topology on 1
    > p1,p2 passes boundary 1
  )");
}

TEST(withdrawal_too_late) {
  plays(R"(
    peers 2
    update_topology on 1
    update_topology on 2 &
    leave_boundary on 1
    > p1,p2 passes boundary 1
  )");
}

TEST(withdrawal_and_second_thoughts) {
  plays(R"(
    peers 2
    update_topology on 1
    leave_boundary on 1 &
    update_topology on 1
    update_topology on 2
    > p1,p2 passes boundary 1
  )");
}

TEST(run_scope_waits_for_all_groups) {
  plays(R"(
    islands 2x2
    all_reduce on 1,2,3 scope=run
    all_reduce on 4 scope=run
    > p1,p3 delivers call 0 of the run: p1,p3, waiting 0
    > p2,p4 delivers call 0 of the run: p2,p4, waiting 0
  )");
}
