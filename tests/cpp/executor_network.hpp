// Executors of one operation in one program: frames leave, land, arrive and are acknowledged in any order
// that a seed draws. A Store is what one position has instead of sockets: the operation's memory, symbolic or
// real. It offers
//
//   Content read(executor, send)             what leaves (called again while the frame is under way)
//
//   SlotId prepare(executor, send, landing)  a slot, or the output: kept if asked for, half overwritten
//
//   void put(executor, send, slot, content)  all bytes are there
//
//   void run(executor, work)
//
//   void give(slot)
//
// A slow position sends only when nothing else can happen.
#pragma once
#include <algorithm>
#include <vector>

#include "base/rng.hpp"
#include "check.hpp"
#include "collective/executor.hpp"

namespace pccl::check {

template <class Store, class Content> class Network {
 public:
  struct Node {
    Executor executor;
    Store store;
    bool started = false, copies = false;  // there is own input to copy
    std::uint64_t sent = 0;
  };

  Network(Rng& rng, bool eager) : rng_(rng), eager_(eager) {}
  Node& add(Executor executor, Store store) {
    return nodes.emplace_back(Node{std::move(executor), std::move(store)});
  }

  // One thing that can happen next; false when nothing can.
  bool step() {
    actions_.clear();
    for (std::uint32_t i = 0; i < nodes.size(); ++i) {
      if (!nodes[i].started) actions_.push_back({Kind::start, i, 0});
      if (nodes[i].copies) actions_.push_back({Kind::copy, i, 0});
      if (i != slow) offer_sends(i);
    }
    for (std::uint32_t r = 0; r < readies_.size(); ++r)
      if (nodes[readies_[r].first].started) actions_.push_back({Kind::ready, r, 0});
    for (std::uint32_t f = 0; f < frames_.size(); ++f) {
      const auto& frame = frames_[f];
      if (!frame.left) actions_.push_back({Kind::leave, f, 0});
      if (!frame.landed && nodes[frame.send.position].started) actions_.push_back({Kind::land, f, 0});
      if (frame.left && frame.landed) actions_.push_back({Kind::arrive, f, 0});
    }
    if (actions_.empty() && slow < nodes.size()) offer_sends(slow);
    if (actions_.empty()) return false;
    act(actions_[rng_.below(actions_.size())]);
    return true;
  }

  void run_to_the_end() {
    while (step()) {
    }
    for (const auto& node : nodes) CHECK(node.executor.complete());
    CHECK(frames_.empty());
  }

  std::vector<Node> nodes;
  std::uint32_t slow = UINT32_MAX;

 private:
  enum class Kind { start, copy, ready, send, leave, land, arrive };
  struct Action {
    Kind kind;
    std::uint32_t index, target;
  };
  struct Frame {
    std::uint32_t from = 0;
    ChunkSend send;
    Content content;
    bool left = false, landed = false, signal = false;
    SlotId slot = no_slot;
  };

  void offer_sends(std::uint32_t from) {
    for (const auto target : nodes[from].executor.targets())
      if (nodes[from].started && nodes[from].executor.sendable(target) && under_way(from, target) < 3)
        actions_.push_back({Kind::send, from, target});
  }

  std::size_t under_way(std::uint32_t from, std::uint32_t to) const {
    return std::size_t(std::ranges::count_if(
        frames_, [&](const Frame& f) { return f.from == from && f.send.position == to; }));
  }

  void act(const Action& action) {
    switch (action.kind) {
      case Kind::start:
        return start(action.index);
      case Kind::copy:
        return copy(nodes[action.index]);
      case Kind::ready:
        nodes[readies_[action.index].first].executor.on_ready(readies_[action.index].second);
        readies_.erase(readies_.begin() + action.index);
        return;
      case Kind::send:
        return send(action.index, action.target);
      case Kind::leave:
        return leave(frames_[action.index]);
      case Kind::land:
        return land(frames_[action.index]);
      case Kind::arrive:
        return arrive(action.index);
    }
  }

  void start(std::uint32_t index) {
    auto& node = nodes[index];
    node.started = true;
    std::vector<Work> work;
    node.copies = node.executor.start(work);
    do_all(node, work);
    if (!eager_)
      for (const auto source : node.executor.sources()) readies_.emplace_back(source, index);
  }

  void copy(Node& node) {
    std::vector<Work> work;
    node.copies = node.executor.copy_own(work);
    CHECK(!work.empty());
    do_all(node, work);
  }

  void do_all(Node& node, const std::vector<Work>& work) {
    for (const auto& item : work) node.store.run(node.executor, item);
  }

  void send(std::uint32_t index, std::uint32_t target) {
    auto& node = nodes[index];
    const auto send = node.executor.next(target);
    REQUIRE(send.has_value());
    CHECK_EQ(send->position, target);
    // Both ends mean the same bytes by this frame.
    const auto& mine = node.executor.plan().steps[send->own_step];
    const auto& theirs = nodes[target].executor.plan().steps.at(send->step);
    CHECK_EQ(theirs.segment, mine.segment);
    CHECK_EQ(theirs.in, mine.out);
    CHECK_EQ(theirs.from, std::int32_t(index));
    CHECK_EQ(send->bytes, mine.signals ? 0 : node.executor.chunk_bytes(send->chunk, mine.out));
    node.sent += send->bytes;
    frames_.push_back({index, *send, node.store.read(node.executor, *send)});
  }

  void leave(Frame& frame) {
    auto& node = nodes[frame.from];
    // Nobody has written where these bytes lie while they were on their way out.
    if (!frame.send.scale_own) CHECK(node.store.read(node.executor, frame.send) == frame.content);
    frame.left = true;
    std::vector<Work> work;
    if (node.executor.sent(frame.send, work)) node.store.give(frame.send.slot);
    do_all(node, work);
  }

  Landing offer(const Frame& frame) {
    return nodes[frame.send.position].executor.land(frame.from, frame.send.step, frame.send.chunk,
                                                    frame.send.bytes);
  }

  void land(Frame& frame) {
    auto& node = nodes[frame.send.position];
    const auto landing = offer(frame);
    REQUIRE(landing.kind != Landing::Kind::skip && landing.kind != Landing::Kind::park);
    frame.landed = true;
    frame.signal = landing.kind == Landing::Kind::signal;
    CHECK_EQ(frame.signal, frame.send.bytes == 0);
    if (!frame.signal) frame.slot = node.store.prepare(node.executor, frame.send, landing);
    CHECK(offer(frame).kind == Landing::Kind::skip);  // a duplicate, while the first still arrives
  }

  void arrive(std::uint32_t index) {
    const auto frame = std::move(frames_[index]);
    frames_.erase(frames_.begin() + index);
    auto& node = nodes[frame.send.position];
    if (!frame.signal) node.store.put(node.executor, frame.send, frame.slot, frame.content);
    std::vector<Work> work;
    node.executor.arrived(frame.send.step, frame.send.chunk, frame.slot, work);
    do_all(node, work);
    CHECK(offer(frame).kind == Landing::Kind::skip);
  }

  Rng& rng_;
  bool eager_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> readies_;  // (who hears it, from whom)
  std::vector<Frame> frames_;
  std::vector<Action> actions_;
};

}  // namespace pccl::check
