// Plans of calls in blocks, run by executors without a network: whose block is where in the end, in whichever
// order the frames come.
#include <string>

#include "scene_network.hpp"

namespace pccl {
namespace {

using check::numbered;
using check::random_scene;
using check::Scene;
using check::SymbolicNetwork;

using MakePlan = Plan (*)(std::uint32_t position, std::uint32_t world);
// What position `at` holds of a segment in the end; empty: nothing was written.
using Wanted = std::string (*)(std::uint32_t at, std::uint32_t segment, std::uint32_t world);

constexpr std::uint32_t root = 0;

std::string sum_from(std::uint32_t first, std::uint32_t world) {
  auto sum = numbered("x", first % world);
  for (std::uint32_t t = 1; t < world; ++t)
    sum = std::string("(") + sum + "+" + numbered("x", (first + t) % world) + ")";
  return sum;
}

void run(MakePlan make, Wanted wanted, bool sums) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    Rng rng(seed);
    auto scene = random_scene(rng, false);
    for (auto& shape : scene.shapes) shape.count /= 4, shape.dtype = DType::int32;
    SymbolicNetwork network(rng, scene.eager);
    const auto blocks = scene.world;
    const auto layout = Layout::of_blocks(scene.shapes, blocks, scene.chunk_bytes);
    scene.in_place = false;
    scene.slots_max = UINT32_MAX;
    for (std::uint32_t p = 0; p < scene.world; ++p)
      network.add({make(p, scene.world), layout, check::options_of(scene)}, {layout, p, false, false});
    network.run_to_the_end();
    for (std::uint32_t p = 0; p < scene.world; ++p)
      for (std::uint32_t s = 0; s < blocks; ++s)
        for (auto c = layout.segment_begin(s); c < layout.segment_end(s); ++c)
          CHECK_EQ(network.nodes[p].store.output()[c].text, wanted(p, s, scene.world));
    for (const auto& node : network.nodes) CHECK(node.store.slots_free());
    if (!sums) continue;
    std::uint64_t sent = 0;
    for (const auto& node : network.nodes) sent += node.sent;
    CHECK_EQ(sent, (scene.world - 1) * layout.bytes());
  }
}

TEST(all_gather) {
  run(plan_all_gather, [](std::uint32_t, std::uint32_t s, std::uint32_t) { return numbered("x", s); }, true);
}

TEST(gather) {
  run([](std::uint32_t p, std::uint32_t world) { return plan_gather(p, world, root); },
      [](std::uint32_t at, std::uint32_t s, std::uint32_t) {
        return at == root ? numbered("x", s) : std::string();
      },
      false);
}

TEST(scatter) {
  run([](std::uint32_t p, std::uint32_t world) { return plan_scatter(p, world, root); },
      [](std::uint32_t at, std::uint32_t s, std::uint32_t) {
        return at == s ? numbered("x", root) : std::string();
      },
      false);
}

TEST(all_to_all) {
  run(
      plan_all_to_all,
      [](std::uint32_t at, std::uint32_t s, std::uint32_t world) {
        return numbered("x", (at + world - s) % world);
      },
      false);
}

TEST(reduce_scatter_direct) {
  run(
      plan_direct_reduce_scatter,
      [](std::uint32_t at, std::uint32_t s, std::uint32_t world) {
        return at == s ? sum_from(0, world) : std::string();
      },
      true);
}

TEST(reduce_scatter_in_a_ring) {
  run(
      plan_ring_reduce_scatter,
      [](std::uint32_t at, std::uint32_t s, std::uint32_t world) {
        return at == s ? sum_from(s + 1, world) : std::string();
      },
      true);
}

}  // namespace
}  // namespace pccl
