// Whether values are finite: one bad one at any place of any size, and every exponent that is good.

#include "kernels/finite.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "check.hpp"

namespace {

using namespace pccl;
using kernels::all_finite;

template <class Bits> void check_bits(DType dtype, Bits exponent, Bits fraction) {
  const auto sign = Bits(~(exponent | fraction));
  for (const std::size_t count : {1, 2, 15, 4095, 4096, 4097, 9001}) {
    std::vector<Bits> data(count,
                           Bits(sign | (exponent - fraction - 1) | fraction));  // the largest, negative
    CHECK(all_finite(dtype, data.data(), count));
    for (const std::size_t at : {std::size_t{0}, count / 2, count - 1}) {
      for (const Bits bad :
           {exponent, Bits(exponent | sign), Bits(exponent | 1), Bits(exponent | fraction)}) {
        auto one = data;
        one[at] = bad;
        CHECK(!all_finite(dtype, one.data(), count));
        if (at + 1 == count) CHECK(all_finite(dtype, one.data(), at));
      }
    }
  }
  std::vector<Bits> values;  // every exponent, with and without a fraction
  for (Bits e = 0; e < exponent; e = Bits(e + fraction + 1))
    values.insert(values.end(), {e, Bits(e | fraction)});
  CHECK(all_finite(dtype, values.data(), values.size()));
}

}  // namespace

TEST(one_value_that_is_not_finite_is_found_wherever_it_is) {
  check_bits<std::uint32_t>(DType::float32, 0x7f800000u, 0x007fffffu);
  check_bits<std::uint64_t>(DType::float64, 0x7ff0000000000000u, 0x000fffffffffffffu);
  check_bits<std::uint16_t>(DType::float16, 0x7c00, 0x03ff);
  check_bits<std::uint16_t>(DType::bfloat16, 0x7f80, 0x007f);
}

TEST(nothing_is_finite_and_so_are_integers) {
  const std::vector<std::uint8_t> ones(64, 0xff);
  for (std::uint8_t raw = 1; raw <= dtypes_count; ++raw) {
    const auto dtype = static_cast<DType>(raw);
    CHECK(all_finite(dtype, ones.data(), 0));
    CHECK_EQ(all_finite(dtype, ones.data(), 8), !is_floating(dtype));
  }
}

TEST(any_address_will_do) {
  std::vector<std::uint8_t> bytes(8 * 33 + 1);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(all_finite(DType::float64, bytes.data() + 1, 33));
  std::memcpy(bytes.data() + 1 + 8 * 32, &nan, sizeof nan);
  CHECK(!all_finite(DType::float64, bytes.data() + 1, 33));
}

TEST(bf16_holds_what_rounds_to_a_finite_float) {
  const double largest = std::numeric_limits<float>::max();
  for (const double value : {largest, -largest, 1e-300, std::nextafter(largest, 1e300)}) {
    CHECK(all_finite(DType::float64, &value, 1, Quantization::bf16));
  }
  for (const double value : {1e39, -1e39, 1e300, std::numeric_limits<double>::infinity()}) {
    CHECK(!all_finite(DType::float64, &value, 1, Quantization::bf16));
    CHECK_EQ(all_finite(DType::float64, &value, 1, Quantization::int8), std::isfinite(value));
  }
}
