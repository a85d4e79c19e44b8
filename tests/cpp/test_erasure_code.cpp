// Reed-Solomon: that coefficients are what is promised, that any k blocks give back all, that changes bring
// parities up to date, and that wrong blocks are named; on every instruction set of this machine.

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>

#include "base/crc32c.hpp"
#include "check.hpp"
#include "erasure/reed_solomon.hpp"
#include "galois_reference.hpp"
#include "kernels_reference.hpp"

namespace {

using namespace pccl;
using namespace pccl::erasure;
using galois_check::slow_inverse;
using galois_check::slow_product;
using kernels_check::Random;

std::vector<const kernels::GaloisSet*> all_sets() {
  std::vector<const kernels::GaloisSet*> sets;
  for (const auto level : kernels::all_galois_levels) {
    if (const auto* set = kernels::galois_at(level)) sets.push_back(set);
  }
  return sets;
}

// A stripe: its blocks, filled, and their parities.
struct Stripe {
  Stripe(const ReedSolomon& code, std::size_t size, Random& random) : bytes(size) {
    for (std::uint32_t i = 0; i < code.code().blocks(); ++i) {
      auto& block = blocks.emplace_back(size);
      for (auto& byte : block) byte = static_cast<std::byte>(random.below(256));
    }
    code.encode(Read(read()).first(code.code().data), Written(written()).subspan(code.code().data), bytes, 1);
  }
  std::vector<const std::byte*> read() const {
    std::vector<const std::byte*> at;
    for (const auto& block : blocks) at.push_back(block.data());
    return at;
  }
  std::vector<std::byte*> written() {
    std::vector<std::byte*> at;
    for (auto& block : blocks) at.push_back(block.data());
    return at;
  }
  std::size_t bytes;
  std::vector<std::vector<std::byte>> blocks;
};

std::vector<std::uint32_t> some_of(std::uint32_t count, std::uint32_t of, Random& random) {
  std::vector<std::uint32_t> all(of);
  std::iota(all.begin(), all.end(), 0u);
  for (std::uint32_t i = 0; i < count; ++i) std::swap(all[i], all[i + random.below(of - i)]);
  all.resize(count);
  std::ranges::sort(all);
  return all;
}

std::vector<std::uint32_t> others(const std::vector<std::uint32_t>& some, std::uint32_t of) {
  std::vector<std::uint32_t> rest;
  for (std::uint32_t i = 0; i < of; ++i)
    if (!std::ranges::binary_search(some, i)) rest.push_back(i);
  return rest;
}

Code any_code(Random& random) {
  const auto k = 1 + static_cast<std::uint32_t>(random.below(20));
  return {k, 1 + static_cast<std::uint32_t>(random.below(9))};
}

}  // namespace

// A Cauchy matrix, with columns and rows scaled: whoever writes another implementation needs no more than
// this.
TEST(coefficients_are_a_scaled_cauchy_matrix) {
  std::array<std::uint8_t, 256> inverses{};
  for (unsigned a = 0; a < 256; ++a) inverses[a] = slow_inverse(a);
  for (std::uint32_t i = 0; i < 255; ++i) {
    for (std::uint32_t j = 0; i + j < 255; ++j) {
      const auto raw = [&](std::uint32_t row, std::uint32_t slot) { return inverses[row ^ (255 - slot)]; };
      const auto column = inverses[raw(0, j)];
      const auto row = inverses[slow_product(raw(i, 0), inverses[raw(0, 0)])];
      REQUIRE(coefficient(i, j) == slow_product(slow_product(raw(i, j), column), row));
      REQUIRE(coefficient(i, j) != 0);
    }
    CHECK_EQ(coefficient(i, 0), 1);
    CHECK_EQ(coefficient(0, i), 1);
  }
}

TEST(any_k_blocks_give_back_all) {
  for (const auto* set : all_sets()) {
    Random random{41};
    for (int i = 0; i < 40; ++i) {
      const Code code = any_code(random);
      const ReedSolomon rs(code, *set);
      Stripe stripe(rs, random.below(400), random);
      const auto whole = stripe.blocks;
      const auto present =
          some_of(code.data + static_cast<std::uint32_t>(random.below(code.parity)), code.blocks(), random);
      const auto lost = others(present, code.blocks());
      for (const auto block : lost) std::ranges::fill(stripe.blocks[block], std::byte{0x55});
      REQUIRE(rs.decode(stripe.written(), present, lost, stripe.bytes, 1));
      CHECK(stripe.blocks == whole);
      const auto few = some_of(code.data - 1, code.blocks(), random);
      CHECK(!rs.decode(stripe.written(), few, {}, stripe.bytes, 1));
    }
  }
}

TEST(the_largest_codes) {
  Random random{42};
  for (const Code code : {Code{128, 128}, {255, 1}, {1, 255}, {250, 6}}) {
    const ReedSolomon rs(code);
    Stripe stripe(rs, 100, random);
    const auto whole = stripe.blocks;
    const auto present = some_of(code.data, code.blocks(), random);
    const auto lost = others(present, code.blocks());
    for (const auto block : lost) std::ranges::fill(stripe.blocks[block], std::byte{0});
    REQUIRE(rs.decode(stripe.written(), present, lost, stripe.bytes, 1));
    CHECK(stripe.blocks == whole);
    CHECK(rs.verify(stripe.read(), stripe.bytes, 1).right);
  }
}

TEST(fewer_parities_are_the_first_of_more) {
  Random random{43};
  const ReedSolomon more(Code{7, 5}), fewer(Code{7, 3});
  Stripe stripe(more, 1000, random), other = stripe;
  for (std::size_t i = 7; i < 10; ++i) std::ranges::fill(other.blocks[i], std::byte{0});
  fewer.encode(Read(other.read()).first(7), Written(other.written()).subspan(7, 3), 1000, 1);
  CHECK(other.blocks == stripe.blocks);
}

TEST(changes_bring_parities_up_to_date) {
  for (const auto* set : all_sets()) {
    Random random{44};
    const ReedSolomon rs(Code{6, 3}, *set);
    Stripe stripe(rs, 777, random);
    const auto old = stripe.blocks[4];
    for (auto& byte : stripe.blocks[4]) byte = static_cast<std::byte>(random.below(256));
    auto parity = stripe.written();
    parity.erase(parity.begin(), parity.begin() + 6);
    rs.update(parity, 4, old.data(), stripe.blocks[4].data(), 777, 1);
    CHECK(rs.verify(stripe.read(), 777, 1).right);
    parity[1] = nullptr;  // lies elsewhere
    const auto elsewhere = stripe.blocks[7];
    rs.update(parity, 4, stripe.blocks[4].data(), old.data(), 777, 1);
    CHECK(stripe.blocks[7] == elsewhere);
    CHECK(rs.verify(stripe.read(), 777, 1).wrong == std::vector<std::uint32_t>({4}) ||
          !rs.verify(stripe.read(), 777, 1).right);
  }
}

TEST(wrong_blocks_are_named_while_half_the_parities_suffice) {
  for (const auto* set : all_sets()) {
    Random random{45};
    for (int i = 0; i < 60; ++i) {
      const Code code = any_code(random);
      const ReedSolomon rs(code, *set);
      Stripe stripe(rs, 1 + random.below(40'000), random);
      CHECK(rs.verify(stripe.read(), stripe.bytes, 2).right);
      const auto wrong =
          some_of(static_cast<std::uint32_t>(random.below(code.parity / 2 + 1)), code.blocks(), random);
      for (const auto block : wrong)  // single bytes, which need not lie at the same place, or all
        for (std::size_t at = random.below(stripe.bytes); at < stripe.bytes; at += 1 + random.below(20'000))
          stripe.blocks[block][at] ^= static_cast<std::byte>(1 + random.below(255));
      const Verdict verdict = rs.verify(stripe.read(), stripe.bytes, 1);
      CHECK_EQ(verdict.right, wrong.empty());
      REQUIRE(verdict.wrong.has_value());
      CHECK(*verdict.wrong == wrong);
    }
  }
}

TEST(too_many_wrong_blocks_are_not_named) {
  Random random{46};
  const ReedSolomon one(Code{5, 1}), two(Code{5, 2});
  Stripe first(one, 5000, random), second(two, 5000, random);
  first.blocks[2][4000] ^= std::byte{1};
  CHECK(!one.verify(first.read(), 5000, 1).right);
  CHECK(!one.verify(first.read(), 5000, 1).wrong.has_value());
  for (std::size_t at = 0; at < 5000; ++at)
    for (const std::size_t block : {1, 3})
      second.blocks[block][at] ^= static_cast<std::byte>(random.below(256));
  CHECK(!two.verify(second.read(), 5000, 1).right);
  CHECK(!two.verify(second.read(), 5000, 1).wrong.has_value());
}

TEST(threads_share_bytes) {
  Random random{47};
  const ReedSolomon rs(Code{3, 2});
  for (const std::size_t bytes : {0u, 1u, 65536u, 200'001u, 700'000u}) {
    Stripe stripe(rs, bytes, random);
    const auto whole = stripe.blocks;
    for (const std::size_t threads : {2u, 3u, 16u}) {
      for (std::size_t i = 3; i < 5; ++i) std::ranges::fill(stripe.blocks[i], std::byte{1});
      rs.encode(Read(stripe.read()).first(3), Written(stripe.written()).subspan(3), bytes, threads);
      CHECK(stripe.blocks == whole);
      std::ranges::fill(stripe.blocks[0], std::byte{1});
      const std::vector<std::uint32_t> present{1, 2, 4}, lost{0, 3};
      CHECK(rs.decode(stripe.written(), present, lost, bytes, threads));
      CHECK(stripe.blocks == whole);
      CHECK(rs.verify(stripe.read(), bytes, threads).right);
    }
  }
}

TEST(one_pass_copies_sums_and_codes) {
  Random random{48};
  for (const std::size_t bytes : {0u, 1u, 16384u, 50'001u, 400'000u}) {
    const ReedSolomon rs(Code{4, 2});
    const Stripe stripe(rs, bytes, random);
    for (const std::size_t threads : {1u, 3u}) {
      Stripe copy = stripe;
      for (auto& block : copy.blocks) std::ranges::fill(block, std::byte{9});
      auto to = copy.written();
      const auto sums = rs.encode_copying(Read(stripe.read()).first(4), Written(to).first(4),
                                          Written(to).subspan(4), bytes, threads);
      CHECK(copy.blocks == stripe.blocks);
      for (std::size_t i = 0; i < 4; ++i) {
        const auto* first = reinterpret_cast<const std::uint8_t*>(stripe.blocks[i].data());
        CHECK_EQ(sums[i], crc32c_by_table({first, bytes}));
      }
      std::vector<std::byte> one(bytes, std::byte{9});
      CHECK_EQ(copy_summed(one.data(), stripe.blocks[1].data(), bytes, threads), sums[1]);
      CHECK(one == stripe.blocks[1]);
    }
  }
}
