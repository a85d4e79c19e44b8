// Trainers and keepers of one run: what happens to the ones is nothing to the others.
#include "script.hpp"

namespace pccl::sim {
namespace {

TEST(a_keeper_dies_while_trainers_reduce) {
  plays(R"(
    option keepers=3
    peers 2
    all_reduce on 1 &
    all_reduce on 3,4 &
    kill on 5
    > m1: keepers: view 2 of 2 peers: peer 1000003 is gone (its connections broke: connection reset)
    > p3,p4 aborts call 0 of group 0
    > p3,p4 view 0.2[p3,p4]
    > p3,p4 delivers call 0 of group 0: p3,p4, waiting 0
    all_reduce on 2
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
  )");
}

TEST(a_trainer_dies_while_keepers_reduce) {
  plays(R"(
    option keepers=2
    peers 3
    all_reduce on 4 &
    kill on 3
    > m1: view 2 of 2 peers: peer 3 is gone (its connections broke: connection reset)
    > p1,p2 view 0.2[p1,p2]
    all_reduce on 5
    > p4,p5 delivers call 0 of group 0: p4,p5, waiting 0
    update_topology on 4,5 &
    all_reduce on 1,2
    > p4,p5 skips a boundary after 0
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
  )");
}

TEST(a_restarted_master_finds_both_rosters_again) {
  plays(R"(
    option keepers=2
    peers 2
    all_reduce on 1 &
    all_reduce on 3 &
    master dies
    master starts
    after 3s
    > m2: view 1 of 2 peers: the master was restarted
    > m2: keepers: view 1 of 2 peers: the master was restarted
    > p1,p3 aborts call 0 of group 0
    > p1,p2 view 1.1[p1,p2]
    > p3,p4 view 1.1[p3,p4]
    > m2: all_reduce, call 0 of group 0 waits for peer 2 (late to post...)
    > m2: keepers: all_reduce, call 0 of group 0 waits for peer 1000002 (late to post...)
    > p1: waiting in all_reduce, call 0 of group 0 for peer 2 (island peer-2): late to post...
    > p3: waiting in all_reduce, call 0 of group 0 for peer 1000002 (island peer-1000002): late to post...
    all_reduce on 2,4
    > p3,p4 delivers call 0 of group 0: p3,p4, waiting 0
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
  )");
}

}  // namespace
}  // namespace pccl::sim
