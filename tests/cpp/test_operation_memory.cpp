// The arithmetic of whole operations on real memory: executors joined by hand, every result against plain
// C++, bit for bit; and the caller's input, which must come back from any point of an attempt.
#include <map>
#include <memory>
#include <numeric>
#include <optional>

#include "executor_network.hpp"
#include "kernels_reference.hpp"
#include "real_store.hpp"

namespace pccl {
namespace {

using check::RealStore;
using kernels_check::Buffer;
using kernels_check::Random;

struct Case {
  std::vector<TensorShape> shapes;
  ReduceOp op = ReduceOp::sum;
  std::uint32_t world = 2;
  bool in_place = false;
  std::vector<double> weights;  // by position; empty: not weighted
  std::size_t offset = 0;       // of every buffer from an aligned address
  std::uint32_t chunk_bytes = 256, slots_max = 64;
  std::optional<std::uint32_t> root;   // a broadcast
  std::vector<std::uint32_t> hosts{};  // by position: in two levels
  bool remade = false;
};

// Of those that are not skipped.
double total_of(const std::vector<double>& weights) {
  double total = 0;
  for (const double weight : weights) total += weight > 0 ? weight : 0;
  return total;
}

// One operation of `world` positions with memory of its own, on which attempts can be run.
class Bench {
 public:
  explicit Bench(const Case& about, std::uint64_t seed) : case_(about), rng_(seed), random_{seed * 2 + 1} {
    for (std::uint32_t p = 0; p < case_.world; ++p) {
      auto& position = positions_.emplace_back(std::make_unique<Position>());
      std::vector<TensorSpan> spans;
      for (const auto& shape : case_.shapes) {
        fill(*position, shape);
        auto* in = position->in.back()->data();
        spans.push_back({in, case_.in_place ? in : position->out.back()->data(), shape.count, shape.dtype});
      }
      const auto weight = case_.weights.empty() ? std::nullopt : std::optional(case_.weights[p]);
      position->memory =
          std::make_unique<OperationMemory>(std::move(spans), case_.op, weight, position->undo);
      if (case_.remade) position->memory->keep_no_input();
    }
  }

  // An attempt, whole or cut off after some steps.
  void attempt(std::optional<std::uint64_t> steps = {}) {
    const bool weighted = !case_.weights.empty();
    const auto segments = plan_of(0).segments;
    layout_ = std::make_unique<Layout>(case_.shapes, segments, case_.chunk_bytes, weighted ? case_.world : 0);
    check::Network<RealStore, Bytes> network(rng_, rng_.chance(0.5));
    for (std::uint32_t p = 0; p < case_.world; ++p) {
      auto& position = *positions_[p];
      Executor executor(plan_of(p), *layout_,
                        {position.memory->in_place() && case_.world > 1, true, weighted, case_.slots_max});
      position.memory->begin(executor);
      network.add(std::move(executor), {*position.memory, position.slots});
    }
    if (!steps) {
      network.run_to_the_end();
      for (const auto& position : positions_) CHECK_EQ(position->slots.used(), 0);
    } else {
      for (std::uint64_t i = 0; i < *steps && network.step(); ++i) {
      }
    }
  }

  void restore() {
    for (const auto& position : positions_) {
      position->memory->restore();
      position->slots.give_all(1);
      CHECK_EQ(position->slots.used(), 0);
    }
  }

  void remake() {
    for (const auto& position : positions_)
      for (std::size_t t = 0; t < case_.shapes.size(); ++t) position->in[t]->take(*position->given[t]);
  }
  std::size_t undo_bytes() {
    std::size_t bytes = 0;
    for (const auto& position : positions_) {
      position->undo.give(position->memory->release_undo(), 0);
      bytes += position->undo.kept_bytes();
    }
    return bytes;
  }

  void check_inputs() {
    for (const auto& position : positions_)
      for (std::size_t t = 0; t < case_.shapes.size(); ++t) CHECK(position->in[t]->same(*position->given[t]));
  }

  void check_results() {
    for (const auto& position : positions_)
      for (std::size_t t = 0; t < case_.shapes.size(); ++t) {
        CHECK(position->in[t]->untouched_around());
        CHECK(position->out[t]->untouched_around());
      }
    if (!case_.in_place) check_inputs();
    kernels_check::for_all_dtypes([&](DType dtype, auto like) { check_tensors_of<decltype(like)>(dtype); });
  }

  double total_weight(std::uint32_t position) const { return positions_[position]->memory->total_weight(); }
  std::vector<std::uint32_t> skipped(std::uint32_t position) const {
    return positions_[position]->memory->skipped();
  }

 private:
  Plan plan_of(std::uint32_t position) const {
    if (case_.root) return plan_ring_broadcast(position, case_.world, *case_.root);
    const bool weighted = !case_.weights.empty();
    if (!case_.hosts.empty()) return plan_two_level_all_reduce(position, case_.hosts, weighted);
    return plan_ring_all_reduce(position, case_.world, weighted);
  }

  struct Position {
    std::vector<std::unique_ptr<Buffer>> in, given, out;
    UndoPool undo;
    SlotPool slots;
    std::unique_ptr<OperationMemory> memory;
  };

  void fill(Position& position, const TensorShape& shape) {
    const auto bytes = shape.count * size_of(shape.dtype);
    for (auto* buffers : {&position.in, &position.given, &position.out})
      buffers->push_back(std::make_unique<Buffer>(bytes, case_.offset));
    kernels_check::for_all_dtypes([&](DType dtype, auto like) {
      if (dtype == shape.dtype) position.in.back()->template fill<decltype(like)>(shape.count, random_);
    });
    position.given.back()->take(*position.in.back());
  }

  template <class T> T given(std::uint32_t position, std::uint32_t tensor, std::uint64_t i) {
    return positions_[position % case_.world]->given[tensor]->template get<T>(i);
  }

  // Around the ring from the position that has the segment's number, rounded once.
  template <class T> T reference(std::uint32_t segment, std::uint32_t tensor, std::uint64_t i) {
    using A = typename T::Acc;
    using namespace kernels_check;
    if (case_.root) return given<T>(*case_.root, tensor, i);
    if (!case_.hosts.empty()) return two_level_reference<T>(tensor, i);
    if (!case_.weights.empty()) return weighted_reference<T>(segment, tensor, i);
    if (case_.world == 1) return given<T>(0, tensor, i);
    A sum = given<T>(segment, tensor, i).acc();
    for (std::uint32_t t = 1; t < case_.world; ++t)
      sum = expected(case_.op, sum, given<T>(segment + t, tensor, i).acc());
    return T::from(case_.op == ReduceOp::avg ? expected_quotient(sum, case_.world) : sum);
  }

  // Host by host in the order of positions, then the hosts' sums; rounded once.
  template <class T> T two_level_reference(std::uint32_t tensor, std::uint64_t i) {
    using A = typename T::Acc;
    using namespace kernels_check;
    std::map<std::uint32_t, std::optional<A>> sums;
    std::vector<std::uint32_t> order;
    for (std::uint32_t p = 0; p < case_.world; ++p) {
      auto value = given<T>(p, tensor, i).acc();
      if (!case_.weights.empty()) value = canonical(static_cast<A>(static_cast<A>(case_.weights[p]) * value));
      auto& sum = sums[case_.hosts[p]];
      if (!sum) order.push_back(case_.hosts[p]);
      sum = sum ? expected(case_.op, *sum, value) : value;
    }
    A all = *sums[order[0]];
    for (std::size_t h = 1; h < order.size(); ++h) all = expected(case_.op, all, *sums[order[h]]);
    const auto total = case_.weights.empty()
                           ? double(case_.world)
                           : std::accumulate(case_.weights.begin(), case_.weights.end(), 0.0);
    if (total == 0) return T::from(A(0));
    return T::from(case_.op == ReduceOp::avg ? expected_quotient(all, total) : all);
  }

  template <class T> T weighted_reference(std::uint32_t segment, std::uint32_t tensor, std::uint64_t i) {
    using A = typename T::Acc;
    using namespace kernels_check;
    const auto total = total_of(case_.weights);
    if (total == 0) return T::from(A(0));
    if (case_.world == 1) return given<T>(0, tensor, i);
    const auto product = [&](std::uint32_t p) {
      const double weight = case_.weights[p % case_.world];
      return weight < 0 ? A(0) : static_cast<A>(static_cast<A>(weight) * given<T>(p, tensor, i).acc());
    };
    A sum = canonical(product(segment));
    for (std::uint32_t t = 1; t < case_.world; ++t)
      sum = canonical(static_cast<A>(sum + product(segment + t)));
    return T::from(expected_quotient(sum, total));
  }

  template <class T> void check_tensors_of(DType dtype) {
    for (std::uint32_t s = 0; s < plan_of(0).segments; ++s)
      for (auto c = layout_->segment_begin(s); c < layout_->segment_end(s); ++c) {
        const auto& chunk = layout_->chunk(c);
        if (chunk.dtype != dtype) continue;
        for (std::uint64_t i = chunk.offset; i < chunk.offset + chunk.count; ++i)
          check_element<T>(s, chunk.tensor, i);
      }
  }

  template <class T> void check_element(std::uint32_t segment, std::uint32_t tensor, std::uint64_t i) {
    const auto wanted = reference<T>(segment, tensor, i);
    for (const auto& position : positions_) {
      const auto got = (case_.in_place ? position->in : position->out)[tensor]->template get<T>(i);
      if (std::memcmp(&got, &wanted, sizeof got) != 0) {
        CHECK_EQ(std::string("element ") + std::to_string(i) + " of tensor " + std::to_string(tensor),
                 "as in the reference");
        return;
      }
    }
  }

  Case case_;
  Rng rng_;
  Random random_;
  std::vector<std::unique_ptr<Position>> positions_;
  std::unique_ptr<Layout> layout_;
};

void whole(const Case& about, std::uint64_t seed) {
  Bench bench(about, seed);
  bench.attempt();
  bench.check_results();
}

constexpr ReduceOp all_ops[] = {ReduceOp::sum, ReduceOp::avg, ReduceOp::prod, ReduceOp::min, ReduceOp::max};

TEST(every_dtype_and_op) {
  std::uint64_t seed = 1;
  for (std::uint8_t dtype = 1; dtype <= dtypes_count; ++dtype)
    for (const auto op : all_ops)
      for (std::uint32_t world = 1; world <= 4; ++world)
        for (const bool in_place : {false, true}) {
          Case about{{{static_cast<DType>(dtype), 701}}, op, world, in_place, {}, 0, 256, 64, {}};
          about.slots_max = seed % 3 == 0 ? 1 : 64;
          about.offset = seed % 4 == 0 ? 1 + seed % 7 : 0;
          whole(about, ++seed);
        }
}

TEST(two_levels) {
  const std::vector<std::vector<std::uint32_t>> layouts{{4, 4, 4, 9}, {1, 2, 1, 2}, {5, 6, 7, 7}, {1, 1, 2}};
  std::uint64_t seed = 1;
  for (std::uint8_t dtype = 1; dtype <= dtypes_count; ++dtype)
    for (const auto& hosts : layouts)
      for (const auto op : all_ops)
        for (const bool in_place : {false, true}) {
          const auto type = static_cast<DType>(dtype);
          Case about{{{type, 701}}, op, std::uint32_t(hosts.size()), in_place, {}, 0, 256, 64, {}, hosts};
          about.slots_max = seed % 3 == 0 ? 1 : 64;
          about.offset = seed % 4 == 0 ? 1 + seed % 7 : 0;
          whole(about, ++seed);
          if (op != ReduceOp::avg || !is_floating(type)) continue;
          for (std::uint32_t p = 0; p < about.world; ++p) about.weights.push_back(0.1 * (p + seed % 5));
          whole(about, ++seed);
        }
}

// The same sums without an undo copy, also where the input is made again after a part of an attempt.
TEST(inputs_that_are_made_again) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    Case about{
        {{DType::float32, 16401}, {DType::bfloat16, 9001}}, ReduceOp::avg, 3, true, {}, 0, 4096, 64, {}};
    about.remade = true;
    if (seed % 3 == 1) about.hosts = {1, 1, 2};
    if (seed % 3 == 2) about.weights = {1, 0.5, 2};
    Bench bench(about, seed);
    for (const std::uint64_t steps : {std::uint64_t{7 * seed}, std::uint64_t{900}}) {
      bench.attempt(steps);
      bench.restore();
      bench.remake();
    }
    bench.attempt();
    bench.check_results();
    CHECK_EQ(bench.undo_bytes(), 0);
  }
}

TEST(lists_of_tensors) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    Rng rng(seed);
    Case about;
    about.shapes.resize(rng.below(6));
    for (auto& shape : about.shapes)
      shape = {static_cast<DType>(1 + rng.below(dtypes_count)), rng.below(rng.chance(0.3) ? 4 : 400)};
    about.op = all_ops[rng.below(5)];
    about.world = std::uint32_t(1 + rng.below(5));
    about.in_place = rng.chance(0.5);
    about.offset = rng.chance(0.3) ? 1 + rng.below(20) : 0;
    about.slots_max = rng.chance(0.5) ? std::uint32_t(rng.below(3)) : 64;
    about.chunk_bytes = std::uint32_t(64 + rng.below(500));
    if (rng.chance(0.2)) about.root = std::uint32_t(rng.below(about.world));
    whole(about, seed);
  }
}

TEST(sums_of_halves_are_rounded_once) {
  for (const auto dtype : {DType::float16, DType::bfloat16}) {
    // 1 + eps/2 + eps/2 of the half type: rounded after each addition it would stay 1.
    const auto one = dtype == DType::float16 ? kernels::half_from_float(1) : kernels::bfloat16_from_float(1);
    const float tiny = dtype == DType::float16 ? 0x1p-11f : 0x1p-8f;
    const auto half_step =
        dtype == DType::float16 ? kernels::half_from_float(tiny) : kernels::bfloat16_from_float(tiny);
    std::vector<std::array<std::uint16_t, 3>> tensors{
        {one, one, one}, {half_step, half_step, half_step}, {half_step, half_step, half_step}};
    UndoPool undo;
    SlotPool slots;
    Rng rng(1);
    const Layout layout({{dtype, 3}}, 3, 64, 0);
    std::vector<std::unique_ptr<OperationMemory>> memories;
    check::Network<RealStore, Bytes> network(rng, true);
    for (std::uint32_t p = 0; p < 3; ++p) {
      auto* data = reinterpret_cast<std::uint8_t*>(tensors[p].data());
      memories.push_back(std::make_unique<OperationMemory>(std::vector<TensorSpan>{{data, data, 3, dtype}},
                                                           ReduceOp::sum, std::nullopt, undo));
      Executor executor(plan_ring_all_reduce(p, 3, false), layout, {true, true, false, 64});
      memories.back()->begin(executor);
      network.add(std::move(executor), {*memories.back(), slots});
    }
    network.run_to_the_end();
    for (const auto& tensor : tensors)
      for (const auto element : tensor) CHECK_EQ(element, one + 1);
  }
}

TEST(weighted_averages) {
  std::uint64_t seed = 1;
  for (const auto dtype : {DType::float32, DType::float64, DType::float16, DType::bfloat16})
    for (std::uint32_t world = 2; world <= 4; ++world)
      for (const bool in_place : {false, true})
        for (int kind = 0; kind < 5; ++kind) {
          Case about{{{dtype, 500}, {DType::float32, 3}}, ReduceOp::avg, world, in_place, {}, 0, 256, 64, {}};
          for (std::uint32_t p = 0; p < world; ++p)
            about.weights.push_back(kind == 0   ? 0
                                    : kind == 1 ? double(p)
                                    : kind == 2 ? 0.1 * (p + 1)
                                    : kind == 3 ? (p == 1 ? skipped_weight : p + 1.0)
                                                : 1e6 * (p + 1) + 1.0 / 3);
          about.offset = seed % 3;
          about.slots_max = seed % 2 == 0 ? 1 : 64;
          Bench bench(about, ++seed);
          bench.attempt();
          bench.check_results();
          const std::vector<std::uint32_t> skipped(kind == 3 ? 1 : 0, 1);
          for (std::uint32_t p = 0; p < world; ++p) {
            CHECK_EQ(bench.total_weight(p), total_of(about.weights));
            CHECK_EQ(bench.skipped(p), skipped);
          }
        }
}

// All weights times a power of two: the same average, to the last bit, as far as sums in float32 reach.
TEST(the_scale_of_the_weights_changes_nothing) {
  const auto averages = [](double scale, bool direct) {
    std::vector<std::array<float, 5>> tensors{
        {1.1f, -2, 3e-18f, 0.7f, 1e18f}, {1.9f, 5, 7e-18f, -0.3f, 1e17f}, {-1.3f, 6, 2e-18f, 0.9f, 3e17f}};
    UndoPool undo;
    SlotPool slots;
    Rng rng(1);
    const Layout layout({{DType::float32, 5}}, 3, 64, 3);
    std::vector<std::unique_ptr<OperationMemory>> memories;
    check::Network<RealStore, Bytes> network(rng, true);
    for (std::uint32_t p = 0; p < 3; ++p) {
      auto* data = reinterpret_cast<std::uint8_t*>(tensors[p].data());
      memories.push_back(std::make_unique<OperationMemory>(
          std::vector<TensorSpan>{{data, data, 5, DType::float32}}, ReduceOp::avg, scale * (p + 1), undo));
      Executor executor(direct ? plan_direct_all_reduce(p, 3, true) : plan_ring_all_reduce(p, 3, true),
                        layout, {true, true, true, 64});
      memories.back()->begin(executor);
      network.add(std::move(executor), {*memories.back(), slots});
    }
    network.run_to_the_end();
    return tensors[0];
  };
  for (const bool direct : {false, true}) {
    const auto wanted = averages(1, direct);
    CHECK(std::abs(wanted[0] - (1.1f + 2 * 1.9f - 3 * 1.3f) / 6) < 1e-6f);
    CHECK_EQ(averages(0x1p-64, direct), wanted);
    CHECK_EQ(averages(0x1p62, direct), wanted);
    CHECK(averages(0x1p-140, direct) != wanted);  // why callers are told which weights there may be
  }
}

TEST(nobody_has_a_weight) {
  for (const bool in_place : {false, true})
    for (std::uint32_t world = 1; world <= 3; ++world) {
      Case about{{{DType::bfloat16, 100}, {DType::float64, 9}},
                 ReduceOp::avg,
                 world,
                 in_place,
                 std::vector<double>(world, 0.0),
                 0,
                 64,
                 64,
                 {}};
      whole(about, 7);  // inputs with infinities and NaNs among them: zeros all the same
    }
}

TEST(results_larger_than_the_caches) {
  std::uint64_t seed = 1;
  for (const auto dtype : {DType::float32, DType::bfloat16})
    for (const bool in_place : {false, true})
      for (const bool weighted : {false, true}) {
        Case about{{{dtype, (2u << 20) / size_of(dtype) + 1001}},
                   ReduceOp::avg,
                   3,
                   in_place,
                   {},
                   0,
                   64u << 10,
                   8,
                   {}};
        if (weighted) about.weights = {1, 2, 0.5};
        about.offset = seed % 2 == 0 ? 8 : 0;
        whole(about, ++seed);
      }
}

TEST(inputs_come_back_after_any_prefix) {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    Rng rng(seed);
    Case about;
    about.shapes.resize(1 + rng.below(4));
    for (auto& shape : about.shapes)
      shape = {static_cast<DType>(1 + rng.below(dtypes_count)), rng.below(200)};
    about.op = all_ops[rng.below(5)];
    about.world = std::uint32_t(2 + rng.below(3));
    about.in_place = rng.chance(0.8);
    about.slots_max = rng.chance(0.5) ? 1 : 64;
    about.chunk_bytes = 64;
    about.offset = rng.below(9);
    if (rng.chance(0.2)) about.root = std::uint32_t(rng.below(about.world));
    if (!about.root && rng.chance(0.3)) {
      for (auto& shape : about.shapes) shape.dtype = static_cast<DType>(1 + rng.below(4));
      for (std::uint32_t p = 0; p < about.world; ++p) about.weights.push_back(double(rng.below(3)));
      about.op = ReduceOp::avg;
    }
    if (!about.root && rng.chance(0.4))
      for (std::uint32_t p = 0; p < about.world; ++p) about.hosts.push_back(std::uint32_t(rng.below(2)));
    Bench bench(about, seed);
    for (int attempts = 0; attempts < 3; ++attempts) {
      bench.attempt(rng.below(40 * about.world * about.shapes.size()));
      bench.restore();
      bench.check_inputs();
    }
    bench.attempt();
    bench.check_results();
  }
}

TEST(some_in_place_and_some_not) {
  for (const bool broadcast : {false, true}) {
    std::vector<std::vector<float>> in, apart;
    for (std::uint32_t p = 0; p < 2; ++p) in.push_back({float(p + 1), 2, 3}), apart.push_back({0, 0, 0});
    std::vector<float> first{10, 20, 30}, second{1, 2, 3};
    UndoPool undo;
    SlotPool slots;
    Rng rng(3);
    const std::vector<TensorShape> shapes{{DType::float32, 3}, {DType::float32, 3}};
    const Layout layout(shapes, broadcast ? 1 : 2, 64, 0);
    std::vector<std::unique_ptr<OperationMemory>> memories;
    check::Network<RealStore, Bytes> network(rng, true);
    for (std::uint32_t p = 0; p < 2; ++p) {
      auto* own = reinterpret_cast<std::uint8_t*>(in[p].data());
      const auto* source = reinterpret_cast<const std::uint8_t*>((p == 0 ? first : second).data());
      auto* out = reinterpret_cast<std::uint8_t*>(apart[p].data());
      memories.push_back(std::make_unique<OperationMemory>(
          std::vector<TensorSpan>{{own, own, 3, DType::float32}, {source, out, 3, DType::float32}},
          ReduceOp::sum, std::nullopt, undo));
      Executor executor(broadcast ? plan_ring_broadcast(p, 2, 0) : plan_ring_all_reduce(p, 2, false), layout,
                        {true, true, false, 64});
      memories.back()->begin(executor);
      network.add(std::move(executor), {*memories.back(), slots});
    }
    network.run_to_the_end();
    for (std::uint32_t p = 0; p < 2; ++p) {
      CHECK_EQ(in[p], (broadcast ? std::vector<float>{1, 2, 3} : std::vector<float>{3, 4, 6}));
      CHECK_EQ(apart[p], (broadcast ? std::vector<float>{10, 20, 30} : std::vector<float>{11, 22, 33}));
    }
  }
}

}  // namespace
}  // namespace pccl
