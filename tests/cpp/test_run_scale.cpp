// A whole run of a thousand peers in one process: the production master and sessions, every message encoded
// and decoded, data as if it came at once. What is measured is the control work of all of them together, in
// time of one core.
#include <ctime>

#include <cstdio>
#include <deque>
#include <memory>

#include "check.hpp"
#include "protocol/master.hpp"
#include "protocol/session.hpp"
#include "wire/codec.hpp"

namespace pccl {
namespace {

constexpr std::uint32_t peers_count = 1000;
// The goal is 50 ms; a test shares its machine, and is built with sanitizers at times.
constexpr double operation_ms_max = 1000;

double cpu_ms() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) * 1e3 + double(now.tv_nsec) * 1e-6;
}

class Run {
 public:
  Run() : master_(MasterConfig{.timing = {}, .rules = {}, .run = 7, .restarted = false, .stored = {}}, now_) {
    for (std::uint32_t i = 0; i < peers_count; ++i) {
      Join join;
      join.min_islands = peers_count;
      join.reachable_at = {{"10.0.0.1", std::uint16_t(1 + i)}};
      sessions_.push_back(std::make_unique<Session>(std::move(join), Timing{}));
      sessions_.back()->on_master_up(now_);
      settle(i);
    }
    settle_all();
  }

  // All reduce, or all reach a boundary.
  void all_post() {
    Posting posting;
    posting.descriptor.tensors = {{DType::float32, 1024}};
    for (std::uint32_t i = 0; i < peers_count; ++i) {
      CHECK(sessions_[i]->post(posting, now_));
      settle(i);
    }
    settle_all();
  }
  void all_enter() {
    for (std::uint32_t i = 0; i < peers_count; ++i) {
      (void)sessions_[i]->enter_boundary(1, never, now_);
      settle(i);
    }
    settle_all();
  }
  // One second in which nobody does anything.
  void idle() {
    for (int step = 0; step < 10; ++step) {
      now_ += 100 * millisecond;
      for (std::uint32_t i = 0; i < peers_count; ++i) {
        if (sessions_[i]->next_deadline() <= now_) sessions_[i]->tick(now_);
        settle(i);
      }
      if (master_.next_deadline() <= now_) master_.tick(now_);
      settle_all();
    }
  }
  bool all_are_members() const {
    for (const auto& session : sessions_)
      if (session->stage() != Session::Stage::member || session->view().members.size() != peers_count)
        return false;
    return true;
  }

  std::size_t delivered = 0, passed = 0, messages = 0;

 private:
  void settle(std::uint32_t index) {
    auto& session = *sessions_[index];
    for (auto effects = session.take_effects(); !effects.empty(); effects = session.take_effects())
      for (auto& e : effects) std::visit([&](auto& one) { apply(index, one); }, e);
  }
  // Until nobody has anything to do.
  void settle_all() {
    for (hear_master(); !to_peers_.empty(); hear_master()) {
      const auto [to, bytes] = std::move(to_peers_.front());
      to_peers_.pop_front();
      const auto message = wire::decode<ToPeer>(bytes);
      REQUIRE(message.has_value());
      sessions_[to]->on(*message, now_);
      settle(to);
    }
  }
  void hear_master() {
    for (auto effects = master_.take_effects(); !effects.empty(); effects = master_.take_effects())
      for (auto& e : effects) {
        const auto* send = std::get_if<master_effect::Send>(&e);
        if (send == nullptr) continue;
        Bytes bytes;
        wire::encode(send->message, bytes);
        to_peers_.emplace_back(std::uint32_t(send->to - 1), std::move(bytes));
        ++messages;
      }
  }

  void apply(std::uint32_t index, effect::SendMaster& e) {
    Bytes bytes;
    wire::encode(e.message, bytes);
    ++messages;
    master_.on(index + 1, *wire::decode<ToMaster>(bytes), now_);
    hear_master();
  }
  // Both ends have the link at once.
  void apply(std::uint32_t index, effect::Dial& e) {
    sessions_[index]->on_link_up(e.peer, now_);
    for (auto& other : sessions_)
      if (other->peer() == e.peer) other->on_link_up(sessions_[index]->peer(), now_);
  }
  void apply(std::uint32_t index, effect::StartAttempt& e) {
    sessions_[index]->attempt_complete(e.key, now_);
  }
  void apply(std::uint32_t, effect::Deliver& e) {
    CHECK(!e.outcome.error && e.outcome.contributors.size() == peers_count);
    ++delivered;
  }
  void apply(std::uint32_t, effect::BoundaryPassed&) { ++passed; }
  template <class E> void apply(std::uint32_t, E&) {}

  Instant now_ = 1000 * second;
  Master master_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::deque<std::pair<std::uint32_t, Bytes>> to_peers_;
};

TEST(control_work_of_a_thousand_peers) {
  const auto began = cpu_ms();
  Run run;
  REQUIRE(run.all_are_members());
  std::printf("  %u peers come in: %.0f ms\n", peers_count, cpu_ms() - began);

  constexpr int operations = 5;
  run.messages = 0;
  auto before = cpu_ms();
  for (int i = 0; i < operations; ++i) run.all_post();
  const auto operation_ms = (cpu_ms() - before) / operations;
  CHECK_EQ(run.delivered, std::size_t(operations) * peers_count);
  CHECK_EQ(run.messages, std::size_t(operations) * peers_count * 2);  // DONE and COMMIT
  std::printf("  one operation: %.2f ms for the master and all peers together\n", operation_ms);
  CHECK(operation_ms < operation_ms_max);

  before = cpu_ms();
  run.all_enter();
  CHECK_EQ(run.passed, peers_count);
  std::printf("  one boundary: %.2f ms\n", cpu_ms() - before);

  before = cpu_ms();
  run.idle();
  CHECK(run.all_are_members());
  std::printf("  one idle second: %.2f ms\n", cpu_ms() - before);
}

}  // namespace
}  // namespace pccl
