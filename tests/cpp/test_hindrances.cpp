// Whom an operation waits for: what peers say of their links is compared.
#include "check.hpp"
#include "protocol/hindrances.hpp"

using namespace pccl;

namespace {

constexpr Duration silent_max = second;

Witness there(PeerId peer) { return {.peer = peer, .came = true}; }

// Of a ring: data comes from `before`, goes to `after`, and flows.
Witness in_ring(PeerId peer, PeerId before, PeerId after) {
  auto witness = there(peer);
  LinkState from, to;
  from.peer = before, from.source = from.came = true, from.received = 5 << 20, from.received_ago_ms = 3;
  to.peer = after, to.came = true, to.sent = 5 << 20, to.sent_ago_ms = 3;
  witness.links = {from, to};
  return witness;
}

std::vector<Witness> ring() { return {in_ring(1, 3, 2), in_ring(2, 1, 3), in_ring(3, 2, 1)}; }

LinkState& from(Witness& witness) { return witness.links[0]; }
LinkState& to(Witness& witness) { return witness.links[1]; }

std::string told(const std::vector<Witness>& all) {
  std::string text;
  for (const auto& h : find_hindrances(all, silent_max))
    text += (text.empty() ? "" : "; ") + std::to_string(h.peer) + " " + name(h.trouble) +
            (h.other == no_peer ? "" : " " + std::to_string(h.other));
  return text;
}

}  // namespace

TEST(who_has_not_come_is_late_waits_elsewhere_or_is_silent) {
  std::vector<Witness> all{there(1), {.peer = 2}, {.peer = 3}, {.peer = 4}};
  all[2].elsewhere = Call::barrier;
  all[3].silent = 3 * second;
  CHECK_EQ(told(all), "4 silent; 2 late; 3 elsewhere");
}

TEST(who_came_a_moment_ago_is_not_late) {
  auto all = ring();
  all[1].came = false;  // it has not told the master yet, but sends
  CHECK_EQ(told(all), "");
  all[1].silent = 2 * second;
  CHECK_EQ(told(all), "2 silent");
}

TEST(who_is_stopped_after_it_came_is_silent) {
  auto all = ring();
  all[1].silent = 2 * second;
  from(all[2]).received_ago_ms = 2000;
  CHECK_EQ(told(all), "2 silent");
}

TEST(a_ring_that_flows_has_nobody_at_fault) { CHECK_EQ(told(ring()), ""); }

TEST(a_link_that_takes_less_than_all_others_is_slow) {
  auto all = ring();
  to(all[0]).to_send = true, to(all[0]).full_ms = 4000;
  from(all[2]).received_ago_ms = 1500;  // starved by 2, which is starved by 1
  from(all[1]).received_ago_ms = 1200;
  CHECK_EQ(told(all), "1 slow_way 2");
  const auto found = find_hindrances(all, silent_max);
  CHECK_EQ(found.front().bytes_per_s, std::uint64_t{(5 << 20) / 4000 * 1000});
  CHECK_EQ(in_words(found.front()), "the way from it to peer 2 is slow: 1310 kB/s");
}

TEST(links_that_are_all_as_full_are_no_fault) {
  auto all = ring();
  for (auto& witness : all) to(witness).to_send = true, to(witness).full_ms = 4000;
  CHECK_EQ(told(all), "");
  std::vector<Witness> two{all[0], all[1]};
  CHECK_EQ(told(two), "");
}

TEST(what_lies_unread_is_its_receivers_fault) {
  auto all = ring();
  to(all[0]).to_send = true, to(all[0]).full_ms = 4000;
  from(all[1]).unread = 1 << 20;
  CHECK_EQ(told(all), "2 receives_slowly 1");
}

TEST(chunks_that_nobody_takes_from_where_they_lie_are_their_readers_fault) {
  auto all = ring();
  to(all[2]).offered = 3, to(all[2]).sent_ago_ms = 1500;
  CHECK_EQ(told(all), "1 receives_slowly 3");
}

TEST(who_has_all_it_needs_and_sends_nothing_is_slow) {
  auto all = ring();
  from(all[2]).received_ago_ms = 2500;  // from 2, which has what it needs
  from(all[0]).received_ago_ms = 2000;  // from 3, which waits for 2
  CHECK_EQ(told(all), "2 sends_slowly 3");
}

TEST(who_is_done_is_at_no_fault) {
  auto all = ring();
  all[1].done = true;
  from(all[2]).received_ago_ms = 2500;
  CHECK_EQ(told(all), "");
}

TEST(links_to_nobody_and_none_at_all_are_no_harm) {
  auto all = ring();
  to(all[0]).peer = 99, to(all[0]).to_send = true, to(all[0]).full_ms = LinkState::not_yet;
  all[1].links.clear();
  CHECK_EQ(told(all), "1 slow_way 99");
  CHECK_EQ(told({}), "");
}
