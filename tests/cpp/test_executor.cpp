// Executors without a network, on expressions for sums: whatever happens in whichever order, the result is
// the same, and so is what was sent.
#include <algorithm>
#include <string>

#include "scene_network.hpp"

namespace pccl {
namespace {

using check::all_reduce_plans;
using check::broadcast_plans;
using check::bytes_of;
using check::is_half;
using check::network_of;
using check::numbered;
using check::random_scene;
using check::Scene;
using check::Shapes;
using check::SymbolicNetwork;
using check::SymbolicStore;

std::string expected_sum(const Scene& scene, std::uint32_t segment, bool half) {
  if (segment >= scene.world) return numbered("w", segment - scene.world);
  const auto leaf = [&](std::uint32_t p) {
    return (scene.weighted ? numbered("w", p) + "*" : std::string()) + numbered("x", p);
  };
  if (scene.world == 1) return "x0";
  auto sum = leaf(segment);
  for (std::uint32_t t = 1; t < scene.world; ++t)
    sum = std::string("(") + sum + "+" + leaf((segment + t) % scene.world) + ")";
  if (scene.weighted) {
    sum += "/";
    for (std::uint32_t p = 0; p < scene.world; ++p) sum += numbered("w", p);
  }
  return half ? std::string("round ") + sum : sum;
}

// What a ring sends, counted by the formula and not by the plan.
std::uint64_t expected_bytes(const Scene& scene) {
  const std::uint64_t p = scene.world;
  std::uint64_t bytes = scene.weighted ? p * (p - 1) * sizeof(double) : 0;
  for (const auto& shape : scene.shapes) {
    const auto elements = shape.count * size_of(shape.dtype);
    const auto sums = shape.count * size_of(accumulator_of(shape.dtype));
    if (p > 1) bytes += (scene.weighted ? sums : elements) + (p - 2) * sums + (p - 1) * elements;
  }
  return bytes;
}

void check_all_reduce(const Scene& scene, SymbolicNetwork& network) {
  std::uint64_t sent = 0;
  for (auto& node : network.nodes) {
    const auto& layout = node.executor.layout();
    const auto segments = scene.world * (scene.weighted ? 2 : 1);
    for (std::uint32_t s = 0; s < segments; ++s)
      for (auto c = layout.segment_begin(s); c < layout.segment_end(s); ++c) {
        const bool half = is_half(layout.chunk(c).dtype) && scene.world > 1;
        CHECK_EQ(node.store.output()[c].text, expected_sum(scene, s, half));
        CHECK_EQ(node.store.output()[c].wire, Wire::element);
        CHECK_EQ(node.store.kept[c], scene.in_place && scene.world > 1 && !layout.hidden(c) ? 1 : 0);
      }
    CHECK(node.store.slots_free());
    sent += node.sent;
    // No peer sends more than its share: segments differ by a cache line and an element.
    if (!scene.weighted && std::ranges::none_of(scene.shapes, [](const auto& t) { return is_half(t.dtype); }))
      CHECK(node.sent <= 2 * (scene.world - 1) * (bytes_of(scene.shapes) / scene.world + 80));
  }
  CHECK_EQ(sent, expected_bytes(scene));
}

void run_all_reduce(Rng& rng, const Scene& scene) {
  auto network = network_of(rng, scene, all_reduce_plans(scene.world, scene.weighted));
  network.run_to_the_end();
  check_all_reduce(scene, network);
}

TEST(all_reduce_in_any_order) {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    Rng rng(seed);
    const auto scene = random_scene(rng, true);
    run_all_reduce(rng, scene);
  }
}

TEST(every_world_and_shape) {
  const std::vector<Shapes> all{{},
                                {{DType::float32, 0}},
                                {{DType::float64, 1}},
                                {{DType::int8, 5}},
                                {{DType::bfloat16, 3}, {DType::float64, 0}, {DType::float16, 700}},
                                {{DType::int8, 1}, {DType::float64, 33}, {DType::int16, 1001}}};
  for (std::uint32_t world = 1; world <= 9; ++world)
    for (const auto& shapes : all)
      for (const bool in_place : {false, true})
        for (const bool weighted : {false, true}) {
          Rng rng(world);
          const Scene scene{shapes, world, 256, 1, 16, in_place, weighted, false};
          run_all_reduce(rng, scene);
        }
}

TEST(broadcast_in_any_order) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Rng rng(seed);
    const auto scene = random_scene(rng, false);
    const auto root = std::uint32_t(rng.below(scene.world));
    auto network = network_of(rng, scene, broadcast_plans(scene.world, root));
    network.run_to_the_end();
    std::uint64_t sent = 0;
    const auto wanted = numbered("x", root);
    for (std::uint32_t p = 0; p < scene.world; ++p) {
      const auto& store = network.nodes[p].store;
      for (const auto& symbol : store.output()) CHECK_EQ(symbol.text, wanted);
      for (const auto kept : store.kept) CHECK_EQ(kept, scene.in_place && p != root ? 1 : 0);
      CHECK(store.slots_free());
      sent += network.nodes[p].sent;
    }
    CHECK_EQ(sent, (scene.world - 1) * bytes_of(scene.shapes));
  }
}

// A stalled receiver: sums that wait to be sent lie in the output, not in ever more slots.
TEST(few_slots_are_enough) {
  for (const std::uint32_t slots_max : {1u, 4u}) {
    const Layout layout({{DType::float32, 16 * 3000}}, 3, 64, 0);
    Executor executor(plan_ring_all_reduce(1, 3, false), layout, {false, false, false, slots_max});
    SymbolicStore store(layout, 1, false, false);
    std::vector<Work> work;
    executor.start(work);
    for (const auto& item : work) store.run(executor, item);
    for (auto c = layout.segment_begin(0); c < layout.segment_end(0); ++c) {
      const ChunkSend send{1, 0, 1, c, 64, Place::input, no_slot, false};
      const auto landing = executor.land(0, 1, c, 64);
      REQUIRE(landing.kind == Landing::Kind::slot);
      const auto slot = store.prepare(executor, send, landing);
      store.put(executor, send, slot, {"x0", Wire::element});
      work.clear();
      executor.arrived(1, c, slot, work);
      for (const auto& item : work) store.run(executor, item);
    }
    CHECK(layout.chunks_in(0) > 900);
    CHECK_EQ(store.slots_most, slots_max + 1);
    CHECK(!executor.sendable(2));  // it has not said READY
    executor.on_ready(2);
    while (const auto send = executor.next(2)) {
      if (send->step == 2) CHECK_EQ(store.read(executor, *send).text, "(x0+x1)");
      if (executor.sent(*send, work)) store.give(send->slot);
    }
    CHECK(store.slots_free());
  }
}

// An own block of any size is copied a part at a time: the thread that does it has other duties.
TEST(own_input_is_copied_in_parts) {
  constexpr std::uint64_t part = 1u << 20;
  const auto layout = Layout::of_blocks({{DType::float32, 16u << 20}}, 2, 256u << 10);
  Executor::Options options;
  options.own_bytes = part;
  Executor executor(plan_gather(0, 2, 0), layout, options);
  std::vector<Work> work;
  std::uint64_t copied = 0;
  for (bool more = executor.start(work); !work.empty(); more = more && executor.copy_own(work)) {
    std::uint64_t bytes = 0;
    for (const auto& item : std::exchange(work, {})) bytes += layout.chunk(item.chunk).element_bytes();
    CHECK(bytes <= part + (256u << 10));
    copied += bytes;
  }
  CHECK_EQ(copied, 64u << 20);
  CHECK(!executor.complete());  // the other block has not come
}

// Before the READY it may be sent so many bytes, whatever the number of chunks, and then nothing.
TEST(a_head_start_is_bounded) {
  constexpr std::uint32_t chunk = 4096;
  const auto make = [] {
    Layout layout({{DType::float32, 100'000}}, 2, chunk, 0);
    return Executor(plan_ring_all_reduce(0, 2, false), std::move(layout), Executor::Options{});
  };
  const auto sends = [](Executor& executor) {
    std::size_t count = 0;
    for (; executor.sendable(1); ++count) CHECK(executor.next(1).has_value());
    return count;
  };
  std::vector<Work> work;
  auto none = make();
  none.start(work);
  CHECK_EQ(sends(none), 0u);
  auto some = make();
  some.give_head_start(1, 2 * chunk + 1);
  CHECK_EQ(sends(some), 0u);  // not before it has begun itself
  some.start(work);
  CHECK_EQ(sends(some), 3u);
  some.on_ready(1);
  CHECK_EQ(sends(some), 13u);  // the window's
}

// Two that exchange much: neither holds more than a window of what the other has not sent yet.
TEST(an_exchange_of_two_has_a_window) {
  Layout layout({{DType::float32, 100'000}}, 1, 4096, 0);
  Executor::Options options;
  options.eager = true;
  options.window = 5;
  Executor executor(plan_exchange_all_reduce(0, 2), std::move(layout), options);
  std::vector<Work> work;
  executor.start(work);
  std::uint32_t sent = 0;
  const auto send_all = [&] {
    for (; executor.sendable(1); ++sent) CHECK(executor.next(1).has_value());
  };
  send_all();
  CHECK_EQ(sent, 5u);
  for (std::uint32_t c = 0; c < 3; ++c) {
    CHECK(executor.land(1, 1, c, executor.chunk_bytes(c, Wire::element)).kind == Landing::Kind::slot);
    executor.arrived(1, c, c, work);
  }
  send_all();
  CHECK_EQ(sent, 8u);
}

}  // namespace
}  // namespace pccl
