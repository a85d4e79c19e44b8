// Coded reduces of any table of sums, on real memory with executors whose frames come in any order; and the
// rotated parities of a code group.
#include <memory>
#include <numeric>
#include <set>

#include "collective/coded.hpp"
#include "executor_network.hpp"
#include "galois_reference.hpp"
#include "real_store.hpp"

namespace pccl {
namespace {

using check::RealStore;
using galois_check::slow_product;

struct Member {
  std::vector<Bytes> blocks, outputs;
  UndoPool undo;
  SlotPool slots;
  std::unique_ptr<OperationMemory> memory;
};

CodedSums random_sums(Rng& rng, std::uint32_t world, std::uint32_t blocks) {
  CodedSums sums(1 + rng.below(6));
  for (auto& sum : sums) {
    sum.owner = std::uint32_t(rng.below(world));
    std::vector<std::uint32_t> positions(world);
    std::iota(positions.begin(), positions.end(), 0);
    for (auto i = positions.size(); i > 1; --i) std::swap(positions[i - 1], positions[rng.below(i)]);
    positions.resize(1 + rng.below(world));
    if (positions == std::vector{sum.owner}) positions = {(sum.owner + 1) % world};
    for (const auto p : positions)
      sum.terms.push_back({p, std::uint32_t(rng.below(blocks)), std::uint8_t(rng.below(256))});
  }
  return sums;
}

struct Group {
  std::shared_ptr<const CodedSums> sums;
  std::uint64_t block_bytes;
  std::vector<std::unique_ptr<Member>> members{};

  void prepare(Rng& rng, std::uint32_t world, std::uint32_t blocks) {
    for (std::uint32_t p = 0; p < world; ++p) {
      auto& member = *members.emplace_back(std::make_unique<Member>());
      CodedRequest request{sums, p, world, {}, {}, block_bytes};
      for (std::uint32_t b = 0; b < blocks; ++b) {
        auto& block = member.blocks.emplace_back(rng.chance(0.5) ? block_bytes : rng.below(block_bytes + 1));
        for (auto& byte : block) byte = std::uint8_t(rng.next());
        block.shrink_to_fit();
      }
      const auto owned = std::ranges::count(*sums, p, &CodedSum::owner);
      member.outputs.assign(std::size_t(owned), Bytes(block_bytes, 0xee));
      for (const auto& block : member.blocks) request.blocks.emplace_back(block);
      for (auto& output : member.outputs) request.outputs.push_back(output.data());
      REQUIRE(!fault_of(request));
      member.memory = std::make_unique<OperationMemory>(request, member.undo);
    }
  }

  // Returns how many bytes have left their peers; cut off after so many steps, if given.
  std::uint64_t run(Rng& rng, std::optional<int> steps = {}) {
    const auto world = std::uint32_t(members.size());
    check::Network<RealStore, Bytes> network(rng, rng.chance(0.5));
    const auto layout = Layout::of_blocks({{DType::uint8, block_bytes}}, std::uint32_t(sums->size()),
                                          std::uint32_t(16 + rng.below(200)));
    const auto window = std::uint32_t(1 + rng.below(20));
    for (std::uint32_t p = 0; p < world; ++p) {
      Executor::Options options{false, true, false, UINT32_MAX};
      options.window = window;
      Executor executor(plan_coded_reduce(p, world, *sums), layout, options);
      members[p]->memory->begin(executor);
      network.add(std::move(executor), {*members[p]->memory, members[p]->slots});
    }
    if (!steps) {
      network.run_to_the_end();
    } else {
      for (int i = 0; i < *steps && network.step(); ++i) {
      }
      for (auto& member : members) member->slots.give_all(1);
    }
    return std::accumulate(network.nodes.begin(), network.nodes.end(), std::uint64_t{0},
                           [](std::uint64_t sum, const auto& node) { return sum + node.sent; });
  }

  Bytes wanted(const CodedSum& sum) const {
    Bytes bytes(block_bytes);
    for (const auto& term : sum.terms) {
      const auto& block = members[term.position]->blocks[term.block];
      for (std::size_t i = 0; i < block.size(); ++i) bytes[i] ^= slow_product(block[i], term.coefficient);
    }
    return bytes;
  }

  void check_outputs() const {
    std::vector<std::size_t> next(members.size());
    for (const auto& sum : *sums) CHECK(members[sum.owner]->outputs[next[sum.owner]++] == wanted(sum));
    for (const auto& member : members) CHECK_EQ(member->slots.used(), 0);
  }
};

TEST(any_sums_of_any_blocks) {
  for (std::uint64_t seed = 1; seed <= 150; ++seed) {
    Rng rng(seed);
    const auto world = std::uint32_t(2 + rng.below(6)), blocks = std::uint32_t(1 + rng.below(3));
    Group group{std::make_shared<const CodedSums>(random_sums(rng, world, blocks)), 1 + rng.below(900)};
    REQUIRE(!fault_of(*group.sums, world));
    group.prepare(rng, world, blocks);
    const auto before = group.members[0]->blocks;
    if (rng.chance(0.5)) group.run(rng, int(rng.below(100)));  // an attempt that is cut off
    group.run(rng);
    group.check_outputs();
    CHECK(group.members[0]->blocks == before);
  }
}

TEST(a_sum_travels_once_past_each_contributor) {
  Rng rng(3);
  const std::uint32_t world = 6, parities = 2;
  CodedSums sums;
  for (std::uint32_t stripe = 0; stripe < world; ++stripe)
    for (std::uint32_t j = 0; j < parities; ++j) {
      auto& sum = sums.emplace_back(CodedSum{.owner = (stripe + j) % world});
      for (std::uint32_t i = 0; i < world - parities; ++i)
        sum.terms.push_back({(stripe + parities + i) % world, i, std::uint8_t(1 + rng.below(255))});
    }
  Group group{std::make_shared<const CodedSums>(sums), 500};
  group.prepare(rng, world, world - parities);
  CHECK_EQ(group.run(rng), std::uint64_t{parities} * world * (world - parities) * 500);
  group.check_outputs();
}

// What goes through a slot is read and written once more: a mirror of a block is none of it, its window is.
TEST(a_sum_of_one_block_as_it_is_arrives_in_its_output) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    Rng rng(seed);
    Group group{
        std::make_shared<const CodedSums>(CodedSums{{0, {{1, 0, 1}}}, {1, {{0, 0, 1}}}, {0, {{1, 0, 2}}}}),
        1 + rng.below(900)};
    group.prepare(rng, 2, 1);
    CHECK_EQ(group.run(rng), std::uint64_t{3} * group.block_bytes);
    group.check_outputs();
  }
  const auto lands = [](std::uint8_t coefficient) {
    const CodedSums sums{{0, {{1, 0, coefficient}}}};
    Executor executor(plan_coded_reduce(0, 2, sums), Layout::of_blocks({{DType::uint8, 100}}, 1, 100),
                      {false, true, false, UINT32_MAX});
    return executor.land(1, 0, 0, 100).kind;
  };
  CHECK(lands(1) == Landing::Kind::output);
  CHECK(lands(2) == Landing::Kind::slot);
}

TEST(tables_that_cannot_be) {
  const auto text = [](const CodedSums& sums) { return fault_of(sums, 3).text; };
  CHECK_EQ(text({{3, {{0, 0, 1}}}}), "sum 0 is for rank 3, who is not there");
  CHECK_EQ(text({{0, {{1, 0, 1}}}, {0, {{4, 0, 1}}}}), "sum 1 has a block of rank 4, who is not there");
  CHECK_EQ(text({{0, {{1, 0, 1}, {1, 1, 1}}}}), "sum 0 has two blocks of rank 1: at most one of each");
  CHECK_EQ(text({{0, {{0, 0, 1}}}}), "sum 0 needs a block of somebody else than its owner");
  CHECK_EQ(text({{0, {}}}), "sum 0 needs a block of somebody else than its owner");
  CHECK_EQ(text(CodedSums(40000, {0, {{1, 0, 1}}})), "too many sums in one operation: split it");
  CHECK(fingerprint({{0, {{1, 0, 1}}}}) != fingerprint({{0, {{1, 0, 2}}}}));
}

}  // namespace
}  // namespace pccl
