// What a peer keeps for later is bounded, whoever sends it and however often.
#include "household.hpp"

namespace pccl::hostile {
namespace {

TEST(parked_frames_are_bounded) {
  for (const std::uint32_t bytes : {0u, 1u, 4096u}) {
    Household home;
    home.enter(3);
    wire::DataHeader header;
    header.view = {0, 1'000'000};
    header.bytes = bytes;
    for (std::uint32_t i = 0; i < 1'000'000 && home.exchange.may_park(1, bytes); ++i) {
      header.chunk = i;
      home.frame(1, header);
    }
    CHECK(!home.exchange.may_park(1, bytes));
    CHECK(home.exchange.may_park(3, limits::chunk_bytes_max));  // others have room all the same
    // What nobody can use any more goes: its sender has left, and no link to it is there.
    home.change_view([](View& view) { view.members.erase(view.members.begin()); });
    CHECK(home.parked.empty());
    CHECK(home.exchange.may_park(1, bytes));
  }
}

// A stripe broke before it was known what had come: its chunks come once more, on another that may break,
// too.
TEST(what_is_sent_again_is_parked_once) {
  Household home;
  home.enter(3);
  const auto key = OpKey{Scope::group, 0, {0, 0, 0}};
  wire::DataHeader header;
  header.view = home.session.view().id;
  header.key = key;
  header.bytes = 1u << 20;
  for (std::uint16_t attempt = 0; attempt < 20; ++attempt)
    for (header.chunk = 0; header.chunk < 6; ++header.chunk) {
      header.attempt = attempt;
      REQUIRE(home.exchange.may_park(1, header.bytes));
      home.frame(1, header);
      home.drain();
    }
  CHECK_EQ(home.parked.size(), 6u);
  for (const auto& [id, frame] : home.parked) CHECK_EQ(frame.second.attempt, 19);
}

constexpr std::uint32_t mebibytes_of_a_head_start = limits::head_start_bytes >> 20;

// What leaves over a long path before this peer has asked for it.
void head_start(Household& home, ViewId view, const OpKey& key) {
  wire::DataHeader header;
  header.view = view;
  header.key = key;
  header.bytes = 1u << 20;
  for (header.chunk = 0; header.chunk < mebibytes_of_a_head_start; ++header.chunk) {
    REQUIRE(home.exchange.may_park(1, header.bytes));
    home.frame(1, header);
  }
  home.drain();
}

// A peer gives up call after call, while this one has not come to the first of them.
TEST(what_was_sent_for_calls_that_failed_is_not_kept) {
  Household home;
  home.enter(3);
  const auto view = home.session.view().id;
  for (std::uint32_t i = 0; i < 20; ++i) {
    const OpKey key{Scope::group, 0, {0, 1, i}};
    head_start(home, view, key);
    CHECK(home.exchange.on_ready(1, {view, key, reduce(100)}));
    CHECK_EQ(home.parked.size(), mebibytes_of_a_head_start);
    home.hear(Failed{i + 1, {key, view, ErrorCode::timeout, 0, false, {}, "too late"}});
    CHECK(home.parked.empty());
    head_start(home, view, key);  // what was under way still
    CHECK(home.parked.empty());
  }
  for (int i = 0; i < 20; ++i) home.post(reduce(100), 1);  // each fails as soon as it comes
  CHECK_EQ(home.delivered, 20u);
}

// The others have gone through views that this peer will hear of in a moment.
TEST(what_was_sent_in_views_that_are_over_is_not_kept) {
  Household home;
  home.enter(3);
  const OpKey key{Scope::group, 0, {0, 1, 0}};
  auto view = home.session.view().id;
  for (int i = 0; i < 20; ++i, ++view.number) head_start(home, view, key);
  CHECK_EQ(home.parked.size(), mebibytes_of_a_head_start);
  for (const auto& [id, frame] : home.parked) CHECK_EQ(frame.second.view.number, view.number - 1);
  --view.number;
  wire::DataHeader late;
  late.view = {view.incarnation, view.number - 1};
  late.key = key;
  home.frame(1, late);
  CHECK_EQ(home.parked.size(), mebibytes_of_a_head_start);
  home.frame(3, late);  // another may be a view behind
  CHECK_EQ(home.parked.size(), mebibytes_of_a_head_start + 1);
  home.change_view([&](View& next) { next.id = view; });
  CHECK_EQ(home.parked.size(), mebibytes_of_a_head_start);  // kept until the call comes
  home.post(reduce(100), 1);
  CHECK(home.parked.empty());
}

TEST(who_is_far_is_asked_for_each_attempt) {
  Household home;
  home.enter(3);
  bool far = false;
  home.exchange.ask_distance([&](PeerId peer) { return far && peer == 3; });
  home.post(reduce(1u << 20), 1);
  CHECK(!home.exchange.next(1) && !home.exchange.next(3));  // they have not asked for it
  far = true;                                               // as the kernel knows after a while
  home.change_view([](View&) {});
  CHECK(!home.exchange.next(1));
  CHECK(home.exchange.next(3).has_value());
}

TEST(parked_announcements_are_bounded) {
  Household home;
  home.enter(3);
  const auto before = allocated_bytes();
  Ready ready;
  ready.view = {0, 1'000'000};
  ready.descriptor.tensors.resize(1000);
  std::uint32_t taken = 0;
  for (; taken < 100'000; ++taken) {
    ready.key.tag.count = taken;
    if (!home.exchange.on_ready(1, ready)) break;
  }
  CHECK(taken >= 1000);
  CHECK(taken <= limits::ready_tensors_max / 1000);
  CHECK(home.exchange.on_ready(3, ready));
  CHECK(allocated_bytes() <= before + 32 * mebibyte);
  ready.descriptor.tensors.clear();
  for (taken = 0; taken < 100'000; ++taken) {
    ready.key.tag.count = taken;
    if (!home.exchange.on_ready(3, ready)) break;
  }
  CHECK_EQ(taken, limits::operations_open_max);
}

TEST(proofs_without_end) {
  Household home;
  home.hear(Welcome{2, 1, 0, 500, "me"});
  const auto before = allocated_bytes();
  Prove prove;
  for (std::uint32_t round = 1; round <= 2000; ++round) {
    prove.round = round;
    prove.targets.resize(limits::peers_named_max);
    for (auto& target : prove.targets) target.peer = 1000 + home.rng.next() / 2;
    home.hear(prove);
    for (const auto& target : prove.targets)
      home.session.on_dial_failed(target.peer, true, "nobody", home.now);
    home.drain();
    home.dialled.clear();
  }
  CHECK(allocated_bytes() <= before + mebibyte);
}

TEST(verdicts_without_end) {
  Household home;
  home.enter(3);
  const auto before = allocated_bytes();
  for (std::uint32_t i = 1; i <= 60'000; ++i) {
    const Verdict verdict{
        {Scope::group, 0, {0, 1, i}}, home.session.view().id, ErrorCode::cancelled, 0, false, {}, "x"};
    home.hear(Failed{i, verdict});
  }
  CHECK(allocated_bytes() <= before + 16 * mebibyte);
}

}  // namespace
}  // namespace pccl::hostile
