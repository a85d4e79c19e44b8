// Recv from whoever sends first, over real sockets: who gets what, in which order, and how the wait ends.
#include "runtime_fixture.hpp"

namespace pccl::testing {

namespace {

struct Message {
  std::vector<float> values;
  std::shared_ptr<OperationHandle> handle;
};

// `from` nobody: whoever sends first.
std::shared_ptr<Message> start(PeerRuntime& peer, PeerId from, PeerId to, float value, bool sends,
                               std::uint32_t name, Duration timeout = never) {
  auto message = std::make_shared<Message>();
  message->values.assign(1000, value);
  PostRequest request;
  request.posting.scope = Scope::pair;
  request.posting.name = name;
  request.posting.from = from;
  request.posting.to = to;
  request.posting.timeout = timeout;
  request.posting.descriptor.call = Call::transfer;
  request.posting.descriptor.tensors = {{DType::float32, message->values.size()}};
  auto* at = reinterpret_cast<std::uint8_t*>(message->values.data());
  request.tensors = {{sends ? at : nullptr, sends ? nullptr : at, message->values.size(), DType::float32}};
  message->handle = peer.post(std::move(request));
  return message;
}

ErrorCode end_of(const Message& message) {
  if (!message.handle->result.wait_for(20 * second)) return ErrorCode::timeout;
  return message.handle->result.get().outcome.error.code;
}

}  // namespace

TEST(messages_go_to_those_who_ask_first_whether_or_not_they_name_the_sender) {
  Run run;
  const auto peers = run.peers(3);
  const auto id = [&](std::size_t i) { return peers[i]->status(false).peer; };
  std::vector<std::shared_ptr<Message>> got, sent;
  for (int i = 0; i < 6; ++i)
    got.push_back(start(*peers[0], i % 2 == 0 ? no_peer : id(1), id(0), -1, false, 4));
  for (int i = 0; i < 6; ++i) sent.push_back(start(*peers[1], id(1), id(0), float(i), true, 4));
  for (int i = 0; i < 6; ++i) {
    CHECK(end_of(*sent[std::size_t(i)]) == ErrorCode::none);
    CHECK(end_of(*got[std::size_t(i)]) == ErrorCode::none);
    CHECK(got[std::size_t(i)]->values == std::vector<float>(1000, float(i)));
  }
  const auto last = start(*peers[0], no_peer, id(0), -1, false, 4);
  const auto other = start(*peers[2], id(2), id(0), 7, true, 4);
  CHECK(end_of(*last) == ErrorCode::none);
  CHECK(last->values == std::vector<float>(1000, 7.0f));
  CHECK(last->handle->result.get().outcome.contributors == std::vector<PeerId>{id(2)});
  CHECK(end_of(*other) == ErrorCode::none);
}

TEST(a_recv_from_anybody_ends_with_its_time_its_caller_or_a_death) {
  Run run;
  auto peers = run.peers(3);
  const auto me = peers[0]->status(false).peer, third = peers[2]->status(false).peer;
  CHECK(end_of(*start(*peers[0], no_peer, me, 0, false, 1, 100 * millisecond)) == ErrorCode::timeout);
  const auto dropped = start(*peers[0], no_peer, me, 0, false, 1);
  peers[0]->cancel(dropped->handle, "not wanted any more");
  CHECK(end_of(*dropped) == ErrorCode::cancelled);
  CHECK_EQ(dropped->handle->result.get().outcome.error.text,
           "peer " + std::to_string(me) + " cancelled recv from any peer, tag 0: not wanted any more");
  const auto anybody = start(*peers[0], no_peer, me, 0, false, 1);
  const auto named = start(*peers[0], third, me, 0, false, 1);
  peers[2].reset();
  CHECK(end_of(*anybody) == ErrorCode::peer_lost);
  CHECK(end_of(*named) == ErrorCode::peer_lost);
  const auto closing = start(*peers[0], no_peer, me, 0, false, 1);
  peers[0]->leave(second);
  CHECK(end_of(*closing) == ErrorCode::closed);
}

}  // namespace pccl::testing
