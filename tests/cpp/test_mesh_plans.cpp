// Plans on a full mesh, run by executors without a network: sums in the order of positions, in whichever
// order the frames come, and nobody holds more parts than the window allows.
#include <algorithm>
#include <string>

#include "scene_network.hpp"

namespace pccl {
namespace {

using check::bytes_of;
using check::is_half;
using check::network_of;
using check::numbered;
using check::random_scene;
using check::Scene;
using check::sent_by_all;
using check::SymbolicNetwork;

std::string sum_by_position(const Scene& scene, bool half) {
  if (scene.world == 1) return "x0";
  std::string sum, total;
  for (std::uint32_t p = 0; p < scene.world; ++p) {
    const auto leaf = (scene.weighted ? numbered("w", p) + "*" : std::string()) + numbered("x", p);
    sum = p == 0 ? leaf : std::string("(") + sum + "+" + leaf + ")";
    total += numbered("w", p);
  }
  if (scene.weighted) sum += "/" + total;
  return half ? std::string("round ") + sum : sum;
}

void check_sums(const Scene& scene, SymbolicNetwork& network) {
  for (auto& node : network.nodes) {
    const auto& layout = node.executor.layout();
    for (std::uint32_t c = 0; c < layout.chunks(); ++c) {
      if (layout.hidden(c)) continue;
      CHECK_EQ(node.store.output()[c].text,
               sum_by_position(scene, is_half(layout.chunk(c).dtype) && scene.world > 1));
      CHECK_EQ(node.store.kept[c], scene.in_place && scene.world > 1 ? 1 : 0);
    }
    CHECK(node.store.slots_free());
  }
}

TEST(direct_in_any_order) {
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    Rng rng(seed);
    const auto scene = random_scene(rng, true);
    auto network = network_of(rng, scene, check::direct_plans(scene.world, scene.weighted));
    network.run_to_the_end();
    check_sums(scene, network);
    const std::uint64_t others = scene.world - 1;
    CHECK_EQ(sent_by_all(network), 2 * others * bytes_of(scene.shapes) +
                                       (scene.weighted ? others * scene.world * sizeof(double) : 0));
    const auto window = std::min<std::uint64_t>(scene.window, network.nodes[0].executor.layout().chunks());
    for (const auto& node : network.nodes)  // parts that wait, and sums that leave from their slots
      if (scene.world > 1) CHECK(node.store.slots_most <= others * window + scene.slots_max + others);
  }
}

TEST(exchange_in_any_order) {
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    Rng rng(seed);
    const auto scene = random_scene(rng, false);
    auto network = network_of(rng, scene, check::exchange_plans(scene.world));
    network.run_to_the_end();
    check_sums(scene, network);
    CHECK_EQ(sent_by_all(network), std::uint64_t{scene.world} * (scene.world - 1) * bytes_of(scene.shapes));
  }
}

}  // namespace
}  // namespace pccl
