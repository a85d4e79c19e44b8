// GF(2^8): that it is a field, and every instruction set of this machine against slow arithmetic on
// polynomials: all factors, odd counts, unaligned addresses, in place, streaming; canaries show stray writes.

#include <cstdint>
#include <vector>

#include "check.hpp"
#include "galois_reference.hpp"
#include "kernels/galois.hpp"
#include "kernels_reference.hpp"

namespace {

using namespace pccl;
using galois_check::slow_product;
using kernels::galois_inverse;
using kernels::galois_multiply;
using kernels::GaloisSet;
using kernels_check::Buffer;
using kernels_check::Random;

std::vector<const GaloisSet*> all_sets() {
  std::vector<const GaloisSet*> sets;
  for (const auto level : kernels::all_galois_levels) {
    if (const auto* set = kernels::galois_at(level)) sets.push_back(set);
  }
  return sets;
}

struct Factors {
  std::uint8_t incoming, own;
};

enum class Place { apart, on_incoming, on_own };

// Whether a set gives what it should and writes nowhere else.
bool right(const GaloisSet& set, const Factors& factors, std::size_t bytes, Place place, bool streaming,
           Random& random) {
  Buffer incoming(bytes, random.below(64)), own(bytes, random.below(64)), apart(bytes, random.below(64));
  incoming.fill<std::uint8_t>(bytes, random);
  own.fill<std::uint8_t>(bytes, random);
  std::vector<std::uint8_t> expected(bytes);
  for (std::size_t i = 0; i < bytes; ++i) {
    expected[i] =
        slow_product(incoming.data()[i], factors.incoming) ^ slow_product(own.data()[i], factors.own);
  }
  Buffer& out = place == Place::apart ? apart : place == Place::on_own ? own : incoming;
  set.combine({out.data(), incoming.data(), own.data(), bytes, factors.incoming, factors.own, streaming});
  return std::equal(expected.begin(), expected.end(), out.data()) && incoming.untouched_around() &&
         own.untouched_around() && apart.untouched_around();
}

}  // namespace

TEST(numbers_form_a_field) {
  for (unsigned a = 0; a < 256; ++a) {
    const auto x = static_cast<std::uint8_t>(a);
    CHECK_EQ(galois_multiply(x, 1), x);
    CHECK_EQ(galois_multiply(x, galois_inverse(x)), a == 0 ? 0 : 1);
    CHECK_EQ(galois_inverse(x), galois_check::slow_inverse(a));
    std::size_t wrong = 0;
    for (unsigned b = 0; b < 256; ++b) {
      const auto y = static_cast<std::uint8_t>(b);
      wrong += galois_multiply(x, y) != slow_product(a, b) || galois_multiply(x, y) != galois_multiply(y, x);
      wrong += (galois_multiply(x, y) == 0) != (a == 0 || b == 0);
    }
    CHECK_EQ(wrong, 0u);
  }
  Random random{21};
  for (int i = 0; i < 100000; ++i) {
    const auto a = static_cast<std::uint8_t>(random.below(256)),
               b = static_cast<std::uint8_t>(random.below(256));
    const auto c = static_cast<std::uint8_t>(random.below(256));
    REQUIRE(galois_multiply(a, galois_multiply(b, c)) == galois_multiply(galois_multiply(a, b), c));
    REQUIRE(galois_multiply(a, b ^ c) == (galois_multiply(a, b) ^ galois_multiply(a, c)));
  }
}

TEST(the_best_set_is_the_last_that_runs) {
  REQUIRE(!all_sets().empty());
  CHECK(all_sets().front()->level() == kernels::GaloisLevel::scalar);
  CHECK(kernels::best_galois().level() == all_sets().back()->level());
}

TEST(every_pair_of_factors) {
  Random random{22};
  for (const GaloisSet* set : all_sets()) {
    std::size_t wrong = 0;
    for (unsigned factor = 0; factor < 256; ++factor) {
      for (const std::uint8_t other : {0, 1, 2, 0x53, 0xff}) {
        const auto c = static_cast<std::uint8_t>(factor);
        wrong += !right(*set, {c, other}, 300, Place::apart, false, random);
        wrong += !right(*set, {other, c}, 300, Place::apart, false, random);
      }
    }
    CHECK_EQ(wrong, 0u);
  }
}

TEST(every_length_and_place) {
  Random random{23};
  for (const GaloisSet* set : all_sets()) {
    std::size_t wrong = 0;
    for (const std::size_t bytes : kernels_check::counts()) {
      for (const Factors factors : {Factors{1, 1}, {1, 7}, {9, 1}, {0x1d, 0xc3}, {0, 5}, {5, 0}, {0, 0}}) {
        for (const Place place : {Place::apart, Place::on_incoming, Place::on_own}) {
          for (const bool streaming : {false, true}) {
            wrong += !right(*set, factors, bytes, place, streaming, random);
          }
        }
      }
    }
    CHECK_EQ(wrong, 0u);
  }
}

// Of parities: what is added can be taken off again, and a factor by its inverse.
TEST(combinations_can_be_undone) {
  Random random{24};
  for (const GaloisSet* set : all_sets()) {
    std::vector<std::uint8_t> data(1000), sum(1000);
    for (auto& byte : data) byte = static_cast<std::uint8_t>(random.next());
    for (auto& byte : sum) byte = static_cast<std::uint8_t>(random.next());
    const auto before = sum;
    for (unsigned factor = 1; factor < 256; ++factor) {
      const auto c = static_cast<std::uint8_t>(factor);
      set->combine({sum.data(), sum.data(), data.data(), 1000, c, c});
      set->combine({sum.data(), sum.data(), data.data(), 1000, galois_inverse(c), 1});
      CHECK(sum == before);
    }
  }
}

TEST(operands_without_a_factor_are_not_read) {
  for (const GaloisSet* set : all_sets()) {
    std::vector<std::uint8_t> data(100, 3), out(100, 9);
    set->combine({out.data(), data.data(), nullptr, 100, 2, 0});
    CHECK(out == std::vector<std::uint8_t>(100, 6));
    set->combine({out.data(), nullptr, data.data(), 100, 0, 1});
    CHECK(out == data);
    set->combine({out.data(), nullptr, nullptr, 100, 0, 0});
    CHECK(out == std::vector<std::uint8_t>(100, 0));
    set->combine({nullptr, nullptr, nullptr, 0, 7, 8});
  }
}
