// The door as stories: islands that come again under their name, and what those who wait are told.
#include "script.hpp"

using pccl::sim::plays;

TEST(an_island_that_comes_again_waits_until_the_old_one_is_gone) {
  plays(R"(
    islands 2x2
    silence on 3,4
    again on 3,4
    after 1200ms
    > p5,p6: not in the run yet: island 'island-1' is in the run already (process 3 on sim); this one ...
    > m1: island 'island-1' is in the run already (process 3 on sim); this one comes in when that one is gone
    after 1s
    > m1: view 2 of 2 peers: peer 3 was silent for 2 s (heartbeats_missed_max=4); peer 4 was silent for 2 s (heartbeats_missed_max=4)
    > p1,p2 view 0.2[p1,p2]
    > p5,p6: not in the run yet: members let newcomers in at their next update_topology()
    > m1: island island-1 waits at the door for the members' next update_topology()
    update_topology on 1,2
    > m1: view 3 of 4 peers: island island-1 came in
    > p1,p2,p5,p6 view 0.3[p1,p2,p5,p6]
    > p1,p2 passes boundary 1
    all_reduce on 1,2,5,6
    > p1,p5 delivers call 0 since boundary 1 of group 0: p1,p5, waiting 0
    > p2,p6 delivers call 0 since boundary 1 of group 1: p2,p6, waiting 0
  )");
}

TEST(one_rank_that_comes_again_and_its_mates_that_rejoin) {
  plays(R"(
    islands 2x2
    again on 4
    kill on 4
    > m1: view 2 of 2 peers: peer 4 is gone (its connections broke: connection reset)
    > p3 is gone: the run goes on without this peer: peer 4 is gone ...; call rejoin() ...
    > p1,p2 view 0.2[p1,p2]
    again on 3
    update_topology on 1,2
    > m1: view 3 of 4 peers: island island-1 came in
    > p1,p2,p5,p6 view 0.3[p1,p2,p6,p5]
    > p1,p2 passes boundary 1
  )");
}

TEST(a_joiner_that_comes_again_while_it_is_at_the_door) {
  plays(R"(
    islands 1x2
    join blue 0 2
    silence on 3
    again on 3
    after 1s
    > m1: rank 1 of island 'blue' has not come; island 'blue' is at the door already (process 3 on sim); ...
    > p4: not in the run yet: island 'blue' is at the door already (process 3 on sim); this one comes ...
    after 1s
    join blue 1 2
    update_topology on 1,2
    > m1: rank 1 of island 'blue' has not come
    > p4: not in the run yet: rank 1 of island 'blue' has not come
    > m1: view 2 of 4 peers: island blue came in
    > p1,p2,p4,p5 view 0.2[p1,p2,p4,p5]
    > p1,p2 passes boundary 1
  )");
}

TEST(an_island_of_the_name_that_goes_away_again) {
  plays(R"(
    peers 2
    join red 0 1
    update_topology on 1,2
    > m1: view 2 of 3 peers: island red came in
    > p1,p2,p3 view 0.2[p1,p2,p3]
    > p1,p2 passes boundary 1
    join red 0 1
    kill on 4
    update_topology on 1,2,3
    > p1,p2,p3 passes boundary 2
  )");
}

TEST(what_those_at_the_door_wait_for) {
  plays(R"(
    islands 1x3
    join blue 1 3
    after 1s
    > p4: not in the run yet: ranks 0 and 2 of island 'blue' have not come
    > m1: ranks 0 and 2 of island 'blue' have not come
    join blue 0 3
    join blue 2 3
    after 2s
    > p4,p5,p6: not in the run yet: members let newcomers in at their next update_topology()
    > m1: island blue waits at the door for the members' next update_topology()
    after 3s
    update_topology on 1,2,3
    > m1: view 2 of 6 peers: island blue came in
    > p1,p2,p3,p4,p5,p6 view 0.2[p1,p2,p3,p5,p4,p6]
    > p1,p2,p3 passes boundary 1
  )");
}

TEST(islands_that_are_waited_for_are_counted) {
  plays(R"(
    peers 2
    update_topology on 1 islands=4 timeout=1500ms
    update_topology on 2 islands=4
    after 2s
    > p1 fails at the boundary: the run has 2 of 4 islands, and the time to wait for them is over
    > p2: waiting in update_topology for peer 1 (island peer-1)
  )");
}
