// Layouts, plans and executors without a network: every sum is an expression, so that who is in it, how often
// and in which order is plain to see.
#include "executor_network.hpp"

#include <map>
#include <set>
#include <string>

namespace pccl {
namespace {

std::string numbered(const char* what, std::uint64_t number) {
  std::string text = what;
  text += std::to_string(number);
  return text;
}

using Shapes = std::vector<TensorShape>;

std::uint64_t bytes_of(const Shapes& shapes) {
  std::uint64_t bytes = 0;
  for (const auto& shape : shapes) bytes += shape.count * size_of(shape.dtype);
  return bytes;
}

Shapes random_shapes(Rng& rng, std::uint64_t elements_max) {
  Shapes shapes(rng.chance(0.4) ? 1 : rng.below(6));
  for (auto& shape : shapes) {
    shape.dtype = static_cast<DType>(1 + rng.below(dtypes_count));
    shape.count = rng.chance(0.3) ? rng.below(12) : rng.below(elements_max);
  }
  return shapes;
}

bool is_half(DType dtype) { return accumulator_of(dtype) != dtype; }

// ---- layouts ----

void check_layout(const Shapes& shapes, std::uint32_t segments, std::uint32_t chunk_bytes, bool weighted) {
  const Layout layout(shapes, segments, chunk_bytes, weighted);
  CHECK_EQ(layout.bytes(), bytes_of(shapes));
  CHECK_EQ(layout.segment_begin(0), 0);
  CHECK_EQ(layout.segment_end(segments * (weighted ? 2 : 1) - 1), layout.chunks());
  std::uint64_t at = 0;
  std::size_t tensor = 0;
  for (std::uint32_t segment = 0; segment < segments; ++segment) {
    std::uint64_t bytes = 0;
    for (auto c = layout.segment_begin(segment); c < layout.segment_end(segment); ++c) {
      const auto& chunk = layout.chunk(c);
      while (tensor < shapes.size() && at == shapes[tensor].count) ++tensor, at = 0;
      CHECK(!layout.hidden(c));
      CHECK_EQ(chunk.tensor, tensor);
      CHECK_EQ(chunk.offset, at);
      CHECK(chunk.count > 0);
      CHECK_EQ(chunk.dtype, shapes.at(tensor).dtype);
      CHECK(chunk.element_bytes() <= std::max<std::uint64_t>(chunk_bytes, 8));
      at += chunk.count;
      bytes += chunk.element_bytes();
    }
    const auto even = layout.bytes() / segments;
    CHECK(bytes <= even + 80);
    CHECK(bytes + 80 >= even);
  }
  while (tensor < shapes.size() && at == shapes[tensor].count) ++tensor, at = 0;
  CHECK_EQ(tensor, shapes.size());
  for (std::uint32_t i = 0; weighted && i < segments; ++i) {
    REQUIRE(layout.chunks_in(segments + i) == 1);
    const auto& chunk = layout.chunk(layout.segment_begin(segments + i));
    CHECK(layout.hidden(layout.segment_begin(segments + i)));
    CHECK_EQ(chunk.offset, i);
    CHECK_EQ(chunk.element_bytes(), sizeof(double));
  }
}

TEST(layouts_cover_everything_once) {
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    Rng rng(seed);
    const auto shapes = random_shapes(rng, 3000);
    check_layout(shapes, std::uint32_t(1 + rng.below(9)), std::uint32_t(64 + rng.below(4000)),
                 rng.chance(0.5));
  }
  check_layout({}, 4, 4096, true);
  check_layout({{DType::float64, 0}, {DType::int8, 0}}, 4, 4096, true);
  check_layout({{DType::int8, 3}}, 9, 4096, false);
  check_layout({{DType::float32, std::uint64_t{1} << 31}}, 3, limits::chunk_bytes_max, false);
}

TEST(chunk_sizes_are_bounded) {
  for (std::uint64_t seed = 1; seed <= 5000; ++seed) {
    Rng rng(seed);
    const auto hint = rng.chance(0.5) ? 0 : std::uint32_t(rng.next() >> (32 + rng.below(32)));
    const auto bytes = choose_chunk_bytes(rng.next() >> rng.below(64), std::uint32_t(rng.below(70'000)),
                                          std::uint32_t(rng.below(256)), hint);
    CHECK(bytes >= limits::chunk_bytes_min);
    CHECK(bytes <= limits::chunk_bytes_max / 2);  // its accumulators fit a frame
    CHECK_EQ(bytes % 64, 0);
  }
  CHECK_EQ(choose_chunk_bytes(std::uint64_t{1} << 40, 4, 2, 0), limits::chunk_bytes_default);
  CHECK_EQ(choose_chunk_bytes(std::uint64_t{1} << 40, 4, 2, 1),
           limits::chunk_bytes_min);  // a hint that makes no sense
  CHECK_EQ(choose_chunk_bytes(1000, 4, 2, 0), limits::chunk_bytes_min);
}

// ---- plans ----

void check_plans(const std::vector<Plan>& plans) {
  std::set<std::tuple<std::uint32_t, std::uint16_t>> fed;
  for (const auto& plan : plans)
    for (const auto& step : plan.steps) {
      CHECK_EQ(step.from < 0, step.merge == Merge::own);
      for (const auto& hop : step.to) {
        REQUIRE(hop.position < plans.size());
        REQUIRE(hop.step < plans[hop.position].steps.size());
        const auto& next = plans[hop.position].steps[hop.step];
        CHECK_EQ(next.from, std::int32_t(plan.position));
        CHECK_EQ(next.segment, step.segment);
        CHECK_EQ(next.in, step.out);
        CHECK(fed.emplace(hop.position, hop.step).second);
      }
    }
  std::size_t expecting = 0;
  for (const auto& plan : plans)
    for (const auto& step : plan.steps) expecting += step.from >= 0;
  CHECK_EQ(fed.size(), expecting);
}

TEST(plans_fit_together) {
  for (std::uint32_t world = 1; world <= 9; ++world) {
    for (const bool weighted : {false, true}) {
      std::vector<Plan> plans;
      for (std::uint32_t p = 0; p < world; ++p) plans.push_back(plan_ring_all_reduce(p, world, weighted));
      check_plans(plans);
      for (const auto& plan : plans) {
        std::set<std::uint32_t> written, finished;
        for (const auto& step : plan.steps) {
          if (step.write) CHECK(written.insert(step.segment).second);
          if (step.finish) CHECK(finished.insert(step.segment).second);
        }
        CHECK_EQ(written.size(), world * (weighted ? 2 : 1));
        CHECK_EQ(finished.size(), world == 1 ? 0u : 1u);
      }
    }
    for (std::uint32_t root = 0; root < world; ++root) {
      std::vector<Plan> plans;
      for (std::uint32_t p = 0; p < world; ++p) plans.push_back(plan_ring_broadcast(p, world, root));
      check_plans(plans);
    }
  }
}

// ---- executors ----

// The bytes of one chunk: an expression, and whether they are elements or accumulators.
struct Symbol {
  std::string text;
  Wire wire = Wire::element;
  bool operator==(const Symbol&) const = default;
};

class SymbolicStore {
 public:
  SymbolicStore(const Layout& layout, std::uint32_t position, bool in_place, bool weighted)
      : position_(position), in_place_(in_place), weighted_(weighted), kept(layout.chunks()) {
    for (std::uint32_t c = 0; c < layout.chunks(); ++c)
      input_.push_back(numbered(layout.hidden(c) ? "w" : "x", position));
    output_.assign(layout.chunks(), {});
    if (in_place)
      for (std::uint32_t c = 0; c < layout.chunks(); ++c)
        if (!layout.hidden(c)) output_[c] = {input_[c], Wire::element};
  }

  Symbol read(const Executor& executor, const ChunkSend& send) const {
    const auto& step = executor.plan().steps[send.own_step];
    if (send.place == Place::output) return output_[send.chunk];
    if (send.place == Place::slot) {
      CHECK(slots_.contains(send.slot));
      return slots_.at(send.slot);
    }
    const auto input = own(executor.layout(), send.chunk);
    if (!send.scale_own) return {input, Wire::element};
    CHECK_EQ(step.out, Wire::accumulator);
    return {weighted_ ? scaled(input) : input, Wire::accumulator};
  }

  SlotId prepare(const Executor& executor, const ChunkSend& send, const Landing& landing) {
    if (landing.kind == Landing::Kind::slot) {
      CHECK(!landing.keep);
      slots_[++last_slot_] = {"half written", Wire::element};
      slots_most = std::max(slots_most, slots_.size());
      return last_slot_;
    }
    if (landing.keep) keep(send.chunk);
    write(executor, send.chunk, {"half written", Wire::element});
    return no_slot;
  }

  void put(const Executor& executor, const ChunkSend& send, SlotId slot, const Symbol& symbol) {
    if (slot != no_slot)
      slots_.at(slot) = symbol;
    else
      write(executor, send.chunk, symbol);
  }

  void give(SlotId slot) { CHECK_EQ(slots_.erase(slot), 1); }

  void run(const Executor& executor, const Work& work) {
    const auto& layout = executor.layout();
    const auto& step = executor.plan().steps[work.step];
    if (work.merge == Merge::own) {
      CHECK(work.to_output && !work.keep && work.slot == no_slot);
      if (in_place_ && !layout.hidden(work.chunk)) return;  // it is there already
      return write(executor, work.chunk, {own(layout, work.chunk), Wire::element});
    }
    REQUIRE(slots_.contains(work.slot));
    const auto incoming = slots_.at(work.slot);
    const bool half = is_half(layout.chunk(work.chunk).dtype);
    CHECK_EQ(incoming.wire, step.in);
    const auto mine = own(layout, work.chunk);
    Symbol sum{std::string("(") + incoming.text + "+" + (weighted_ ? scaled(mine) : mine) + ")", step.out};
    if (step.finish) sum.text = finished(executor, sum.text);
    if (half && step.out == Wire::element) sum.text = std::string("round ") + sum.text;
    if (work.keep) keep(work.chunk);
    if (work.to_output) {
      CHECK(step.write || !in_place_);            // a partial sum never takes the place of an input
      CHECK(!half || step.out == Wire::element);  // it would not fit
      write(executor, work.chunk, sum);
    }
    CHECK_EQ(work.to_slot, !work.free_slot);
    CHECK(work.to_slot || work.to_output);
    if (work.to_slot)
      slots_.at(work.slot) = sum;
    else
      give(work.slot);
  }

  const std::vector<Symbol>& output() const { return output_; }
  bool slots_free() const { return slots_.empty(); }
  std::size_t slots_most = 0;

 private:
  std::string own(const Layout& layout, std::uint32_t chunk) const {
    return in_place_ && !layout.hidden(chunk) ? output_[chunk].text : input_[chunk];
  }
  std::string scaled(const std::string& text) const { return numbered("w", position_) + "*" + text; }
  std::string finished(const Executor& executor, const std::string& sum) const {
    if (!weighted_) return sum;
    const auto& layout = executor.layout();
    std::string total;
    for (std::uint32_t c = 0; c < layout.chunks(); ++c)
      if (layout.hidden(c)) total += output_[c].text;
    return sum + "/" + total;
  }
  void keep(std::uint32_t chunk) {
    CHECK(in_place_);
    CHECK_EQ(output_[chunk].text, input_[chunk]);  // before anything else is there
    ++kept[chunk];
  }
  void write(const Executor& executor, std::uint32_t chunk, Symbol symbol) {
    if (in_place_ && !executor.layout().hidden(chunk)) CHECK_EQ(kept[chunk], 1);
    output_[chunk] = std::move(symbol);
  }

  std::uint32_t position_;
  bool in_place_, weighted_;
  std::vector<std::string> input_;
  std::vector<Symbol> output_;
  std::map<SlotId, Symbol> slots_;
  SlotId last_slot_ = 0;

 public:
  std::vector<int> kept;
};

using SymbolicNetwork = check::Network<SymbolicStore, Symbol>;

struct Scene {
  Shapes shapes;
  std::uint32_t world = 1, chunk_bytes = 4096, slots_max = 64;
  bool in_place = false, weighted = false, eager = false;
};

Scene random_scene(Rng& rng, bool may_be_weighted) {
  Scene scene;
  scene.world = std::uint32_t(1 + rng.below(9));
  scene.chunk_bytes = std::uint32_t(64 + rng.below(1000));
  scene.shapes = random_shapes(rng, 1 + scene.chunk_bytes * rng.below(12) / 8);
  scene.slots_max = rng.chance(0.5) ? std::uint32_t(rng.below(3)) : 64;
  scene.in_place = rng.chance(0.5);
  scene.weighted = may_be_weighted && rng.chance(0.4);
  scene.eager = rng.chance(0.3);
  if (scene.weighted)
    for (auto& shape : scene.shapes) shape.dtype = static_cast<DType>(1 + rng.below(4));
  return scene;
}

SymbolicNetwork network_of(Rng& rng, const Scene& scene, const std::vector<Plan>& plans,
                           std::uint32_t segments) {
  SymbolicNetwork network(rng, scene.eager);
  const Layout layout(scene.shapes, segments, scene.chunk_bytes, scene.weighted);
  const bool in_place = scene.in_place && scene.world > 1;
  for (std::uint32_t p = 0; p < scene.world; ++p)
    network.add({plans[p], layout, {in_place, scene.eager, scene.weighted, scene.slots_max}},
                {layout, p, in_place, scene.weighted});
  return network;
}

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

TEST(all_reduce_in_any_order) {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    Rng rng(seed);
    const auto scene = random_scene(rng, true);
    std::vector<Plan> plans;
    for (std::uint32_t p = 0; p < scene.world; ++p)
      plans.push_back(plan_ring_all_reduce(p, scene.world, scene.weighted));
    auto network = network_of(rng, scene, plans, scene.world);
    network.run_to_the_end();
    check_all_reduce(scene, network);
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
          const Scene scene{shapes, world, 256, 1, in_place, weighted, false};
          std::vector<Plan> plans;
          for (std::uint32_t p = 0; p < world; ++p) plans.push_back(plan_ring_all_reduce(p, world, weighted));
          auto network = network_of(rng, scene, plans, world);
          network.run_to_the_end();
          check_all_reduce(scene, network);
        }
}

TEST(broadcast_in_any_order) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Rng rng(seed);
    const auto scene = random_scene(rng, false);
    const auto root = std::uint32_t(rng.below(scene.world));
    std::vector<Plan> plans;
    for (std::uint32_t p = 0; p < scene.world; ++p)
      plans.push_back(plan_ring_broadcast(p, scene.world, root));
    auto network = network_of(rng, scene, plans, 1);
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
    const Layout layout({{DType::float32, 16 * 3000}}, 3, 64, false);
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
      if (executor.sent(*send)) store.give(send->slot);
    }
    CHECK(store.slots_free());
  }
}

// ---- hostile input ----

TEST(nothing_unexpected_lands) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    Rng rng(seed);
    auto scene = random_scene(rng, true);
    const auto position = std::uint32_t(rng.below(scene.world));
    const bool broadcast = !scene.weighted && rng.chance(0.3);
    const auto plan = broadcast
                          ? plan_ring_broadcast(position, scene.world, std::uint32_t(rng.below(scene.world)))
                          : plan_ring_all_reduce(position, scene.world, scene.weighted);
    const Layout layout(scene.shapes, broadcast ? 1 : scene.world, scene.chunk_bytes, scene.weighted);
    Executor executor(plan, layout,
                      {scene.in_place && scene.world > 1, scene.eager, scene.weighted, scene.slots_max});
    std::set<std::pair<std::uint16_t, std::uint32_t>> expected, landed;
    for (std::uint16_t s = 0; s < plan.steps.size(); ++s)
      for (auto c = layout.segment_begin(plan.steps[s].segment);
           c < layout.segment_end(plan.steps[s].segment); ++c)
        if (plan.steps[s].from >= 0) expected.emplace(s, c);
    for (int i = 0; i < 4000; ++i) {
      const auto any = [&](std::uint64_t near) {
        return rng.chance(0.9) ? rng.below(near + 2) : rng.next() >> rng.below(64);
      };
      const auto from =
          rng.chance(0.5) ? (position + scene.world - 1) % scene.world : std::uint32_t(any(scene.world));
      const auto step = std::uint16_t(any(plan.steps.size()));
      const auto chunk = std::uint32_t(any(layout.chunks()));
      const bool real = expected.contains({step, chunk}) && std::int32_t(from) == plan.steps[step].from;
      const auto right = real ? executor.chunk_bytes(chunk, plan.steps[step].in) : 0;
      const auto bytes = rng.chance(0.8) && real ? right : std::uint32_t(any(scene.chunk_bytes));
      const auto landing = executor.land(from, step, chunk, bytes);
      const bool takes = real && bytes == right && !landed.contains({step, chunk});
      CHECK_EQ(landing.kind != Landing::Kind::skip, takes);
      CHECK(landing.kind != Landing::Kind::park);
      if (takes) landed.emplace(step, chunk);
    }
    CHECK_EQ(executor.complete(), expected.empty());
  }
}

}  // namespace
}  // namespace pccl
