// A master that dies and comes back, or does not, as stories. Commands are explained in script.hpp.
#include "script.hpp"

using pccl::sim::plays;

TEST(master_restart_with_quorum) {
  plays(R"(
    peers 3
    all_reduce on 1,2
    master dies
    kill on 3
    master starts
    after 3s
    > m2: view 1 of 2 peers: the master was restarted
    > p1,p2 aborts call 0 of group 0
    > p1,p2 view 1.1[p1,p2]
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
    all_reduce on 1,2
    > p1,p2 delivers call 1 of group 0: p1,p2, waiting 0
  )");
}

TEST(master_restart_without_quorum) {
  plays(R"(
    peers 3
    all_reduce on 1,2,3
    > p1,p2,p3 delivers call 0 of group 0: p1,p2,p3, waiting 0
    all_reduce on 1
    master dies
    kill on 2,3
    master starts
    after 3s
    > m2: the restarted master heard only 1 of 3 islands of the last view; ...
    > p1 aborts call 1 of group 0
    > p1 delivers call 1 of group 0: the restarted master heard only 1 of 3 islands of the last view; ...
    > p1 is gone: the restarted master heard only 1 of 3 islands of the last view; ...
  )");
}

TEST(master_restart_with_a_store) {
  plays(R"(
    option store=yes
    peers 3
    all_reduce on 1
    master dies
    kill on 2,3
    master starts
    after 3s
    > m2: view 1 of 1 peers: the master was restarted
    > p1 aborts call 0 of group 0
    > p1 view 1.1[p1]
    > p1 delivers call 0 of group 0: p1, waiting 0
  )");
}

// Nobody listens where they did, so nobody waits for them as long as they would wait for a master.
TEST(master_restart_when_all_have_died_too) {
  plays(R"(
    option store=yes
    peers 2
    all_reduce on 1,2
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
    master dies
    kill on 1,2
    master starts
    join
    after 1s
    > p3: not in the run yet: the restarted master waits for the peers of the run that was
    after 1s
    > m2: view 1 of 1 peers: the run begins
    > p3 view 1.1[p3]
  )");
}

TEST(master_restart_while_one_of_them_lives_far_away) {
  plays(R"(
    option store=yes
    peers 2
    master dies
    kill on 2
    cut on 1
    master starts
    join
    after 4s
    > p3: not in the run yet: the restarted master waits for the peers of the run that was
    mend on 1
    after 3s
    > m2: view 1 of 1 peers: the master was restarted
    > p1 view 1.1[p1]
    > m2: island peer-4294967297 waits at the door for the members' next update_topology()
    > p3: not in the run yet: members let newcomers in at their next update_topology()
  )");
}

TEST(master_is_gone_for_good) {
  plays(R"(
    peers 2
    all_reduce on 1
    master dies
    after 31s
    > p1,p2 is gone: the master has not answered for 30000 ms; ...
    > p1 aborts call 0 of group 0
    > p1 delivers call 0 of group 0: the master has not answered for 30000 ms; ...
  )");
}

TEST(master_restart_while_all_hold_the_result) {
  plays(R"(
    peers 2
    cut on 1
    all_reduce on 1,2
    master dies
    mend on 1
    master starts
    after 3s
    > m2: view 1 of 2 peers: the master was restarted
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
    > p1,p2 view 1.1[p1,p2]
  )");
}

TEST(master_restart_while_one_does_not_hold_the_result) {
  plays(R"(
    peers 2
    oversleep on 2
    all_reduce on 1,2
    master dies
    master starts
    after 3s
    > m2: view 1 of 2 peers: the master was restarted
    > p1,p2 aborts call 0 of group 0
    > p1,p2 view 1.1[p1,p2]
  )");
}

TEST(master_restart_with_a_verdict_that_one_lacks) {
  plays(R"(
    peers 2
    oversleep on 2
    all_reduce on 1,2
    cut on 1
    wake on 2
    > p2 delivers call 0 of group 0: p1,p2, waiting 0
    master dies
    mend on 1
    master starts
    after 3s
    > m2: view 1 of 2 peers: the master was restarted
    > p1 delivers call 0 of group 0: p1,p2, waiting 0
    > p1,p2 view 1.1[p1,p2]
  )");
}
