// Operations whose sums are over GF(2^8), with a coefficient for each position and segment, on the plans and
// the executor of all others: parities, and what they are for.
#include <bit>
#include <memory>
#include <numeric>
#include <vector>

#include "executor_network.hpp"
#include "galois_reference.hpp"
#include "kernels/galois.hpp"
#include "real_store.hpp"

namespace pccl {
namespace {

using check::RealStore;
using galois_check::Matrix;
using galois_check::slow_product;
using Block = std::vector<std::uint8_t>;
using MakePlan = Plan (*)(std::uint32_t position, std::uint32_t world);

constexpr std::uint32_t world_min = 4, world_max = 6;
constexpr MakePlan scatter_plans[] = {plan_ring_reduce_scatter, plan_direct_reduce_scatter};
constexpr MakePlan reduce_plans[] = {
    [](std::uint32_t p, std::uint32_t world) { return plan_ring_all_reduce(p, world, false); },
    [](std::uint32_t p, std::uint32_t world) { return plan_direct_all_reduce(p, world, false); },
    plan_exchange_all_reduce};

Block random_block(Rng& rng, std::size_t bytes) {
  Block block(bytes);
  for (auto& byte : block) byte = std::uint8_t(rng.next());
  return block;
}

Block coded(const std::vector<Block>& blocks, const std::vector<std::uint8_t>& coefficients) {
  Block sum(blocks[0].size());
  for (std::size_t p = 0; p < blocks.size(); ++p)
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] ^= slow_product(blocks[p][i], coefficients[p]);
  return sum;
}

// One position's memory of one operation.
struct Member {
  Block in, out;
  UndoPool undo;
  SlotPool slots;
  std::unique_ptr<OperationMemory> memory;
};

struct Group {
  std::vector<std::unique_ptr<Member>> members;

  // Of `count` elements per tensor; in a call in blocks, per block.
  void prepare(std::vector<Block> inputs, std::size_t output_bytes, const Matrix& coefficients, Call call,
               DType dtype, std::uint64_t count, bool in_place) {
    const auto reduction = kernels::galois_reduction(coefficients);
    for (auto& input : inputs) {
      auto& member = *members.emplace_back(std::make_unique<Member>());
      member.in = std::move(input);
      member.out.assign(output_bytes, 0xee);
      auto* out = in_place ? member.in.data() : member.out.data();
      member.memory = std::make_unique<OperationMemory>(
          std::vector<TensorSpan>{{member.in.data(), out, count, dtype}}, reduction, member.undo, call);
    }
  }

  // A call in blocks has no room in its output for sums on their way.
  void run(Rng& rng, const Layout& layout, MakePlan plan, bool in_place, bool in_blocks,
           std::optional<int> steps = {}) {
    const auto world = std::uint32_t(members.size());
    check::Network<RealStore, Bytes> network(rng, rng.chance(0.5));
    const auto slots_max = in_blocks ? UINT32_MAX : std::uint32_t(rng.chance(0.5) ? 1 : 64);
    for (std::uint32_t p = 0; p < world; ++p) {
      auto& member = *members[p];
      Executor executor(plan(p, world), layout, {in_place && world > 1, true, false, slots_max});
      member.memory->begin(executor);
      network.add(std::move(executor), {*member.memory, member.slots});
    }
    if (!steps) return network.run_to_the_end();
    for (int i = 0; i < *steps && network.step(); ++i) {
    }
  }
};

// Every position gives `inputs[p]`, a block for each position, and gets one.
std::vector<Block> reduce_scatter(Rng& rng, MakePlan plan, const std::vector<Block>& inputs,
                                  const Matrix& coefficients, DType dtype = DType::uint8) {
  const auto world = std::uint32_t(inputs.size());
  const auto bytes = inputs[0].size() / world;
  const auto count = bytes / size_of(dtype);
  const auto layout = Layout::of_blocks({{dtype, count}}, world, std::uint32_t(64 + rng.below(300)));
  Group group;
  group.prepare(inputs, bytes, coefficients, Call::reduce_scatter, dtype, count, false);
  group.run(rng, layout, plan, false, true);
  std::vector<Block> results;
  for (std::uint32_t p = 0; p < world; ++p) {
    CHECK(group.members[p]->in == inputs[p]);
    CHECK_EQ(group.members[p]->slots.used(), 0);
    results.push_back(group.members[p]->out);
  }
  return results;
}

// The same block for every segment: a code word has one parity per position then.
std::vector<Block> repeated(const std::vector<Block>& blocks) {
  std::vector<Block> inputs;
  for (const auto& block : blocks) {
    auto& input = inputs.emplace_back();
    for (std::size_t i = 0; i < blocks.size(); ++i) input.insert(input.end(), block.begin(), block.end());
  }
  return inputs;
}

std::vector<Block> random_blocks(Rng& rng, std::size_t blocks, std::size_t bytes) {
  std::vector<Block> made;
  for (std::size_t i = 0; i < blocks; ++i) made.push_back(random_block(rng, bytes));
  return made;
}

std::vector<std::uint32_t> places_of(std::uint32_t set) {
  std::vector<std::uint32_t> places;
  for (; set != 0; set &= set - 1) places.push_back(std::uint32_t(std::countr_zero(set)));
  return places;
}

// The coefficients with which what survives (data in the order of positions, then parities) makes each lost
// block: of the rows of identity and code that survive, the inverse.
Matrix decoding(const Matrix& code, const std::vector<std::uint32_t>& data,
                const std::vector<std::uint32_t>& parities) {
  const auto size = code.size();
  Matrix rows;
  for (const auto p : data) {
    rows.emplace_back(size);
    rows.back()[p] = 1;
  }
  for (const auto s : parities) rows.push_back(code[s]);
  return galois_check::inverted(rows);
}

TEST(every_coefficient_of_position_and_segment) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Rng rng(seed);
    const auto world = std::uint32_t(world_min + rng.below(world_max - world_min + 1));
    const auto dtype = rng.chance(0.5) ? DType::uint8 : DType::int64;
    const auto bytes = 8 * (1 + rng.below(200));
    Matrix coefficients(world);
    for (auto& of_segment : coefficients) of_segment = random_block(rng, world);
    for (auto& of_segment : coefficients) of_segment[rng.below(world)] = std::uint8_t(rng.below(2));
    const auto inputs = random_blocks(rng, world, world * bytes);
    for (const auto plan : scatter_plans) {
      const auto results = reduce_scatter(rng, plan, inputs, coefficients, dtype);
      for (std::uint32_t s = 0; s < world; ++s) {
        std::vector<Block> blocks;
        for (const auto& input : inputs)
          blocks.emplace_back(input.begin() + std::ptrdiff_t(s * bytes),
                              input.begin() + std::ptrdiff_t((s + 1) * bytes));
        CHECK(results[s] == coded(blocks, coefficients[s]));
      }
    }
  }
}

// Whoever is lost, as many parities as there are lost blocks bring them back: any of the parities.
TEST(any_parities_bring_any_blocks_back) {
  Rng rng(9);
  for (auto world = world_min; world <= world_max; ++world)
    for (const auto plan : scatter_plans) {
      const auto code = galois_check::cauchy(world, world);
      const auto data = random_blocks(rng, world, 333);
      const auto parities = reduce_scatter(rng, plan, repeated(data), code);
      const auto all = (1u << world) - 1;
      for (std::uint32_t lost = 1; lost <= all; ++lost)
        for (std::uint32_t used = 1; used <= all; ++used) {
          if (std::popcount(lost) != std::popcount(used)) continue;
          const auto kept = places_of(all & ~lost), helpers = places_of(used);
          std::vector<Block> survivors;
          for (const auto p : kept) survivors.push_back(data[p]);
          for (const auto s : helpers) survivors.push_back(parities[s]);
          const auto rows = decoding(code, kept, helpers);
          for (const auto p : places_of(lost)) {
            Block block(333);
            for (std::uint32_t i = 0; i < world; ++i)
              kernels::best_galois().combine(
                  {block.data(), block.data(), survivors[i].data(), block.size(), 1, rows[p][i]});
            REQUIRE(block == data[p]);
          }
        }
    }
}

// Repair is one more coded reduce-scatter, among those who survived.
TEST(survivors_repair_by_the_same_plans) {
  Rng rng(10);
  for (auto world = world_min; world <= world_max; ++world)
    for (const auto plan : scatter_plans) {
      const auto code = galois_check::cauchy(world, world);
      const auto data = random_blocks(rng, world, 500);
      const auto parities = reduce_scatter(rng, plan, repeated(data), code);
      // Blocks 0 and 1 are lost; parities 1 and 3 stand in for them.
      std::vector<std::uint32_t> kept(world - 2);
      std::iota(kept.begin(), kept.end(), 2);
      std::vector<Block> held(data.begin() + 2, data.end());
      held.push_back(parities[1]);
      held.push_back(parities[3]);
      const auto rows = decoding(code, kept, {1, 3});
      Matrix coefficients;
      for (std::uint32_t s = 0; s < world; ++s) coefficients.push_back(rows[s % 2]);
      const auto results = reduce_scatter(rng, plan, repeated(held), coefficients);
      for (std::uint32_t s = 0; s < world; ++s) CHECK(results[s] == data[s % 2]);
    }
}

TEST(all_reduces_with_coefficients) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Rng rng(seed);
    const auto world = std::uint32_t(1 + rng.below(world_max));
    const bool in_place = rng.chance(0.5);
    const auto plan = reduce_plans[seed % std::size(reduce_plans)];
    const auto inputs = random_blocks(rng, world, 700);
    const auto coefficients = random_block(rng, world);
    const auto segments = plan == reduce_plans[2] ? 1 : world;
    const Layout layout({{DType::uint8, 700}}, segments, 128, 0);
    Group group;
    group.prepare(inputs, 700, Matrix(segments, coefficients), Call::all_reduce, DType::uint8, 700, in_place);
    group.run(rng, layout, plan, in_place, false, int(rng.below(60)));  // an attempt that is cut off
    for (std::uint32_t p = 0; p < world; ++p) {
      group.members[p]->memory->restore();
      group.members[p]->slots.give_all(1);
      CHECK(group.members[p]->in == inputs[p]);
    }
    group.run(rng, layout, plan, in_place, false);
    const auto wanted = coded(inputs, coefficients);
    for (const auto& member : group.members) CHECK((in_place ? member->in : member->out) == wanted);
  }
}

}  // namespace
}  // namespace pccl
