// What is remembered of payloads on their way, and how fast stripes may go together.
#include "check.hpp"
#include "runtime/sends.hpp"

using namespace pccl;

namespace {

Sends::Token sent(Sends& sends, const void* stripe, std::uint32_t chunk, std::uint64_t number,
                  std::uint64_t held) {
  Sends::Send send;
  send.peer = 1;
  send.stripe = stripe;
  send.outgoing.send.chunk = chunk;
  send.key.tag.count = chunk;
  const auto token = sends.add(std::move(send));
  if (number != 0) sends.gone(token, number, held);
  return token;
}

}  // namespace

TEST(what_has_come_is_forgotten_and_the_rest_taken_in_order) {
  Sends sends;
  const int a = 0, b = 0;
  for (std::uint32_t i = 1; i <= 4; ++i) sent(sends, &a, i, i, 100);
  sent(sends, &a, 5, 0, 0);  // the kernel has not all of it
  sent(sends, &b, 6, 1, 100);
  CHECK_EQ(sends.held(&a), 400u);
  std::vector<std::uint32_t> came;
  const auto note = [&](Sends::Token, Sends::Send& send) { came.push_back(send.outgoing.send.chunk); };
  sends.received(&a, 2, note);
  sends.received(&a, 1, note);  // older news
  CHECK_EQ(came, (std::vector<std::uint32_t>{1, 2}));
  CHECK_EQ(sends.held(&a), 200u);
  std::vector<std::uint32_t> left;
  for (const auto& send : sends.take(&a)) left.push_back(send.outgoing.send.chunk);
  CHECK_EQ(left, (std::vector<std::uint32_t>{3, 4, 5}));
  CHECK_EQ(sends.held(&a), 0u);
  CHECK_EQ(sends.held(&b), 100u);
}

// A token is used again while the receipt of its first use is still to come.
TEST(receipts_of_finished_operations_concern_nobody_else) {
  Sends sends;
  const int a = 0;
  const auto first = sent(sends, &a, 1, 1, 50);
  sends.erase_if([](const auto& send) { return send.key.tag.count == 1; }, [](auto, auto&) {});
  const auto second = sent(sends, &a, 2, 0, 0);
  CHECK_EQ(first, second);
  sends.received(&a, 1, [](auto, auto&) { CHECK(false); });
  REQUIRE(sends.find(second) != nullptr);
  CHECK_EQ(sends.find(second)->outgoing.send.chunk, 2u);
  CHECK(sends.find(77) == nullptr);
}
