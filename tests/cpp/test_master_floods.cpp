// A peer that talks to the master without end: it is put out, or costs nothing.
#include <ctime>

#include "court.hpp"

namespace pccl::hostile {
namespace {

// An honest pair and a third, who floods: the pair stays and can work.
template <class F> void flood(F next_message, std::size_t messages, std::size_t bytes_most) {
  Court court;
  const auto a = court.admit(1, join_of("a")), b = court.admit(2, join_of("b"));
  const auto c = court.admit(3, join_of("c"));
  for (const auto peer : {a, b, c}) REQUIRE(peer != no_peer);
  for (ConnectionId i = 1; i <= 3; ++i)
    court.say(i, EnterBoundary{court.master.view().id, court.master.view().boundaries + 1});
  REQUIRE(court.is_member(a) && court.is_member(b) && court.is_member(c));
  const auto before = allocated_bytes();
  std::size_t most = 0;
  for (std::size_t i = 0; i < messages && !court.closed(3); ++i) {
    court.say(3, next_message(i, court.master.view()));
    if (i % 64 == 0) most = std::max(most, allocated_bytes());
  }
  CHECK(most <= before + bytes_most);
  REQUIRE(court.is_member(a) && court.is_member(b));
  court.hang_up(3);
  court.pass(second);
  for (int beat = 0; beat < 2; ++beat) {
    for (ConnectionId i = 1; i <= 2; ++i) court.say(i, Heartbeat{0});
    court.pass(second);
  }
  REQUIRE(court.is_member(a) && court.is_member(b) && !court.is_member(c));
}

OpKey nth_key(std::size_t i, const View& view) {
  return {Scope::group, 0, {view.boundaries, 1, std::uint32_t(i)}};
}

TEST(a_flood_of_votes) {
  flood([](std::size_t i, const View& view) -> ToMaster { return Done{view.id, nth_key(i, view), 0}; },
        20'000, 4 * mebibyte);
}

TEST(a_flood_of_offers) {
  flood(
      [](std::size_t i, const View& view) -> ToMaster {
        StateOffer offer;
        offer.view = view.id;
        offer.key = nth_key(i, view);
        offer.entries.resize(5000);
        return offer;
      },
      200, 8 * mebibyte);
}

TEST(a_flood_of_waiting) {
  flood(
      [](std::size_t i, const View& view) -> ToMaster {
        Waiting waiting{view.id, false, false, {}};
        for (std::size_t k = 0; k < 1000; ++k)
          waiting.calls.push_back({nth_key(1000 * i + k, view), Call::barrier, false});
        return waiting;
      },
      20, 8 * mebibyte);
}

TEST(a_flood_of_abandoned_calls) {
  flood([](std::size_t i,
           const View& view) -> ToMaster { return Abandon{nth_key(i, view), ErrorCode::cancelled, "x"}; },
        60'000, 16 * mebibyte);
}

TEST(a_flood_of_lost_links) {
  flood(
      [](std::size_t i, const View& view) -> ToMaster {
        return LinkLost{view.id, view.members[i % view.members.size()].peer, true, false,
                        std::string(4096, 'x')};
      },
      5000, mebibyte);
}

// CPU time of this thread, so that other work of the machine does not count.
double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + double(now.tv_nsec) * 1e-9;
}

// Each costs what the first ones did, however many were heard before.
void flood_of_registrations(Court& court, std::uint64_t from) {
  constexpr std::uint64_t part = 5000;
  const auto before = allocated_bytes();
  double first = 0, last = 0;
  for (std::uint64_t i = from; i <= from + limits::members_max + part; ++i) {
    const auto began = cpu_seconds();
    court.say(i, registration_of(i));
    court.hang_up(i);
    if (i < from + part) first += cpu_seconds() - began;
    if (i >= from + limits::members_max - part && i < from + limits::members_max)
      last += cpu_seconds() - began;
  }
  CHECK(last < 20 * first + 0.5);
  CHECK(allocated_bytes() <= before + 80 * mebibyte);
}

TEST(a_flood_of_registrations) {
  Court court(restarted());
  flood_of_registrations(court, 1);
}

TEST(a_flood_of_registrations_at_a_master_that_heard_too_few) {
  Court court(restarted());
  auto one = registration_of(1);
  one.view.id = {1, 1};
  for (const PeerId peer : {1, 2, 3}) {
    one.view.members.emplace_back();
    one.view.members.back().peer = peer;
    one.view.members.back().island = std::to_string(peer);
  }
  court.say(1, one);
  court.pass(60 * second);
  REQUIRE(court.master.doubt() == Doubt::heard_too_few);
  flood_of_registrations(court, 10);
}

}  // namespace
}  // namespace pccl::hostile
