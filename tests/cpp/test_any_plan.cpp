// Any plan, any number of peers, any sizes, frames in any order: the right sums in the right order, inputs
// kept once, every slot given back, and nobody holds more than the window allows.
#include <algorithm>
#include <numeric>

#include "scene_network.hpp"

namespace pccl {
namespace {

using check::is_half;
using check::network_of;
using check::numbered;
using check::plans_of;
using check::random_scene;
using check::Scene;
using check::Shapes;
using check::SymbolicNetwork;

std::string joined(const std::vector<std::string>& parts) {
  auto sum = parts.at(0);
  for (std::size_t i = 1; i < parts.size(); ++i) sum = std::string("(") + sum + "+" + parts[i] + ")";
  return sum;
}

// Positions in the order of addition, some of them added up among themselves first.
using Order = std::vector<std::vector<std::uint32_t>>;

std::string sum_in(const Scene& scene, const Order& order, bool half) {
  if (scene.world == 1) return "x0";
  std::vector<std::string> sums;
  for (const auto& together : order) {
    std::vector<std::string> leaves;
    for (const auto p : together)
      leaves.push_back((scene.weighted ? numbered("w", p) + "*" : std::string()) + numbered("x", p));
    sums.push_back(joined(leaves));
  }
  auto sum = joined(sums);
  if (scene.weighted) {
    sum += "/";
    for (std::uint32_t p = 0; p < scene.world; ++p) sum += numbered("w", p);
  }
  return half ? std::string("round ") + sum : sum;
}

Order one_by_one(std::uint32_t world, std::uint32_t first) {
  Order order;
  for (std::uint32_t t = 0; t < world; ++t) order.push_back({(first + t) % world});
  return order;
}

Order by_host(const std::vector<std::uint32_t>& hosts) {
  std::vector<std::uint32_t> names;
  Order order;
  for (std::uint32_t p = 0; p < hosts.size(); ++p) {
    const auto at = std::size_t(std::ranges::find(names, hosts[p]) - names.begin());
    if (at == names.size()) names.push_back(hosts[p]), order.emplace_back();
    order[at].push_back(p);
  }
  return order;
}

struct Reduction {
  std::vector<Plan> plans;
  std::vector<Order> orders;   // by segment; one for all
  std::uint64_t held_max = 0;  // slots that the window allows, per chunk of it
  std::vector<std::uint32_t> hosts{};
};

Reduction draw(Rng& rng, Scene& scene) {
  const auto world = scene.world;
  switch (rng.below(4)) {
    case 0: {
      Reduction ring{check::all_reduce_plans(world, scene.weighted), {}, world};
      for (std::uint32_t s = 0; s < world; ++s) ring.orders.push_back(one_by_one(world, s));
      return ring;
    }
    case 1:
      return {check::direct_plans(world, scene.weighted), {one_by_one(world, 0)}, world};
    case 2:
      scene.weighted = false;
      return {check::exchange_plans(world), {one_by_one(world, 0)}, UINT32_MAX};
    default: {
      std::vector<std::uint32_t> hosts(world);
      for (auto& host : hosts) host = std::uint32_t(7 * rng.below(1 + rng.below(world)));
      return {check::two_level_plans(hosts, scene.weighted), {by_host(hosts)}, two_level_parts(hosts), hosts};
    }
  }
}

void check_outcome(const Scene& scene, const Reduction& reduction, SymbolicNetwork& network) {
  for (auto& node : network.nodes) {
    const auto& layout = node.executor.layout();
    for (std::uint32_t s = 0; s < reduction.plans[0].segments; ++s)
      for (auto c = layout.segment_begin(s); c < layout.segment_end(s); ++c) {
        const bool half = is_half(layout.chunk(c).dtype) && scene.world > 1;
        const auto& order = reduction.orders[reduction.orders.size() == 1 ? 0 : s];
        CHECK_EQ(node.store.output()[c].text, sum_in(scene, order, half));
        CHECK_EQ(node.store.kept[c], scene.in_place && scene.world > 1 ? 1 : 0);
      }
    CHECK(node.store.slots_free());
    // Sums that leave from their slots come on top: as many as the executor may hold of these.
    const auto held = reduction.held_max * scene.window + scene.slots_max + 2 * scene.world;
    if (scene.world > 1) CHECK(node.store.slots_most <= held);
  }
}

TEST(reductions) {
  for (std::uint64_t seed = 1; seed <= 1500; ++seed) {
    Rng rng(seed);
    auto scene = random_scene(rng, true);
    const auto reduction = draw(rng, scene);
    auto network = network_of(rng, scene, reduction.plans);
    if (rng.chance(0.3)) network.slow = std::uint32_t(rng.below(scene.world));
    network.run_to_the_end();
    check_outcome(scene, reduction, network);
  }
}

// 3+1, 2+2, 1+1+2 ... : every partition of up to 6 peers, in every arrangement, with shapes that fit nothing.
TEST(every_partition_into_hosts) {
  const std::vector<Shapes> all{
      {}, {{DType::float64, 1}}, {{DType::bfloat16, 3}, {DType::float64, 0}, {DType::float16, 700}}};
  std::uint64_t seed = 0;
  for (std::uint32_t world = 1; world <= 6; ++world) {
    std::vector<std::uint32_t> hosts(world);
    for (bool more = true; more;) {
      for (const auto& shapes : all) {
        Rng rng(++seed);
        Scene scene{shapes, world, 256, 1, 2, rng.chance(0.5), rng.chance(0.5), false};
        const Reduction reduction{check::two_level_plans(hosts, scene.weighted), {by_host(hosts)}, 1000};
        auto network = network_of(rng, scene, reduction.plans);
        network.run_to_the_end();
        check_outcome(scene, reduction, network);
      }
      // The next word whose letters first appear in order: each partition once.
      more = false;
      for (auto p = world; p-- > 1 && !more;) {
        const auto most = *std::max_element(hosts.begin(), hosts.begin() + p) + 1;
        more = hosts[p] < most;
        if (more) ++hosts[p], std::fill(hosts.begin() + p + 1, hosts.end(), 0u);
      }
    }
  }
  CHECK_EQ(seed, 3 * (1 + 2 + 5 + 15 + 52 + 203));
}

// Where a ring's link is slow, what comes in does not pile up before it, in place or not.
TEST(a_slow_link_holds_a_bounded_number_of_sums) {
  for (const bool scatter : {false, true})
    for (const bool in_place : {false, true})
      for (const std::uint32_t world : {2u, 3u, 5u}) {
        if (scatter && in_place) continue;
        Rng rng(world);
        Scene scene{{{DType::float32, 16 * 500 * world}}, world, 64, UINT32_MAX, 3, in_place, false, true};
        const auto plans = plans_of(world, [&](std::uint32_t p) {
          return scatter ? plan_ring_reduce_scatter(p, world) : plan_ring_all_reduce(p, world, false);
        });
        auto network = network_of(rng, scene, plans);
        network.slow = 1;
        network.run_to_the_end();
        for (const auto& node : network.nodes) CHECK(node.store.slots_most <= world * scene.window);
      }
}

TEST(broadcasts) {
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    Rng rng(seed);
    const auto scene = random_scene(rng, false);
    const auto root = std::uint32_t(rng.below(scene.world));
    const auto kind = rng.below(3);
    const auto plans = plans_of(scene.world, [&](std::uint32_t p) {
      return kind == 0   ? plan_ring_broadcast(p, scene.world, root)
             : kind == 1 ? plan_direct_broadcast(p, scene.world, root)
                         : plan_exchange_broadcast(p, scene.world, root);
    });
    auto network = network_of(rng, scene, plans);
    network.run_to_the_end();
    const auto wanted = numbered("x", root);
    for (std::uint32_t p = 0; p < scene.world; ++p) {
      const auto& store = network.nodes[p].store;
      for (const auto& symbol : store.output()) CHECK_EQ(symbol.text, wanted);
      for (const auto kept : store.kept) CHECK_EQ(kept, scene.in_place && p != root ? 1 : 0);
      CHECK(store.slots_free());
    }
    CHECK_EQ(check::sent_by_all(network), (scene.world - 1) * check::bytes_of(scene.shapes));
    // What the direct plan is for: nobody but the root sends more than its part to each.
    if (kind == 1 && scene.world > 1)
      for (std::uint32_t p = 0; p < scene.world; ++p)
        CHECK(p == root || network.nodes[p].sent <=
                               (scene.world - 2) * (check::bytes_of(scene.shapes) / (scene.world - 1) + 80));
  }
}

TEST(transfers) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    Rng rng(seed);
    auto scene = random_scene(rng, false);
    scene.world = 2;
    scene.in_place = false;
    auto network = network_of(rng, scene, {plan_transfer(0), plan_transfer(1)});
    network.run_to_the_end();
    for (const auto& symbol : network.nodes[0].store.output()) CHECK_EQ(symbol.text, "");
    for (const auto& symbol : network.nodes[1].store.output()) CHECK_EQ(symbol.text, "x0");
  }
}

}  // namespace
}  // namespace pccl
