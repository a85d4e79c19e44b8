// A broken control connection is a death when somebody else says so too; the master can ask the peer's port.
#include "script.hpp"

using pccl::sim::plays;

TEST(a_refusal_at_its_port_is_the_second_witness) {
  plays(R"(
    islands 2x2
    kill on 1,2,3
    > m1: view 2 of 2 peers: peer 1 is gone (its connections broke: nobody listens at its address any more)
    > m1: view 3 of 0 peers: peer 3 is gone (its connections broke: nobody listens at its address any more)
    > p4 view 0.2[p3,p4]
    > p4 is gone: the run goes on without this peer: peer 3 is gone (its connections broke: ...); call rejoin() ...
  )");
}

TEST(who_only_lost_its_connection_comes_back) {
  plays(R"(
    peers 2
    cut on 2
    after 1s
    mend on 2
    all_reduce on 1,2
    > p1,p2 delivers call 0 of group 0: p1,p2, waiting 0
  )");
}
