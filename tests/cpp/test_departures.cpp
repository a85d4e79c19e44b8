#include "check.hpp"
#include "protocol/departures.hpp"

using namespace pccl;

TEST(the_newest_departures_are_remembered) {
  Departures gone;
  for (PeerId peer = 1; peer <= limits::departures_max + 10; ++peer)
    gone.note(peer, "reason " + std::to_string(peer));
  CHECK_EQ(gone.why(10), "");
  CHECK_EQ(gone.why(11), "reason 11");
  CHECK_EQ(gone.why(limits::departures_max + 10), "reason " + std::to_string(limits::departures_max + 10));
  CHECK_EQ(gone.why(limits::departures_max + 11), "");
}

TEST(the_first_reason_counts_and_is_cut) {
  Departures gone;
  gone.note(1, std::string(10'000, 'x'));
  gone.note(1, "another");
  CHECK_EQ(gone.why(1), std::string(limits::reason_bytes_max, 'x'));
}
