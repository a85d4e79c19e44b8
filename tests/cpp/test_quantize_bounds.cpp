// How far off quantized values are: the bounds that kernels/quantize.hpp states, on data that is likely to
// break them. That all instruction sets give the same bits is test_quantize.cpp's.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "check.hpp"
#include "quantize_reference.hpp"

namespace {

using namespace pccl;
using namespace pccl::quantize_check;

template <class Real> struct Span {
  Real low = std::numeric_limits<Real>::infinity(), high = -low;
  void take(Real value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

// Of each block.
template <class Real> std::vector<Span<Real>> spans_of(const std::vector<Real>& data, std::uint32_t block) {
  std::vector<Span<Real>> spans(data.size() / block + 1);
  for (std::size_t i = 0; i < data.size(); ++i) spans[i / block].take(data[i]);
  return spans;
}

std::uint32_t block_of(const BlockCode& code) { return code.kind == Quantization::bf16 ? 256 : code.block; }

// How far one encoding may be off.
template <class Real> double bound(const BlockCode& code, const Span<Real>& span, double value) {
  const double one = quantum(code.kind, sizeof(Real) == 8, span.low, span.high, value);
  // bfloat16 does not round up to infinity.
  const bool saturates = code.kind == Quantization::bf16 && std::fabs(value) > 0x1.fep127;
  const double share = code.stochastic || saturates ? 1 : 0.5;
  return one * (share + 0x1p-13) + std::fabs(value) * std::numeric_limits<Real>::epsilon() / 2 +
         smallest_of<Own<Real>>();
}

template <class E>
std::size_t beyond_bound(const BlockCode& code, DType element, Shape shape, Random& random) {
  using Acc = typename E::Acc;
  const auto data = samples<E>(shape, 1357, random);
  const auto wide = widened(data);
  const auto codec = Codec::of(code, element);
  Bytes bytes(codec->encoded_bytes(data.size()));
  std::vector<Acc> back(data.size());
  CHECK(codec->encode(data.data(), data.size(), {random.next(), 0}, bytes.data()));
  codec->decode_set(bytes.data(), data.size(), back.data());
  const auto spans = spans_of(wide, block_of(code));
  std::size_t beyond = 0;
  for (std::size_t i = 0; i < wide.size(); ++i) {
    const double value = wide[i], error = std::fabs(static_cast<double>(back[i]) - value);
    beyond += !(error <= bound(code, spans[i / block_of(code)], value));
  }
  return beyond;
}

// --- A mean over peers.

// R / levels is the quantum at most.
double levels_of(Quantization kind) {
  switch (kind) {
    case Quantization::int8:
      return 254;
    case Quantization::uint8:
      return 255;
    case Quantization::int4:
      return 14 / (1 + 0x1p-7);
    case Quantization::fp8:
      return 28;
    default:
      return 256;
  }
}

double range_of(Quantization kind, const Span<float>& span) {
  if (kind == Quantization::uint8) return static_cast<double>(span.high) - span.low;
  return 2 * std::max(std::fabs(static_cast<double>(span.low)), std::fabs(static_cast<double>(span.high)));
}

// Each peer's data is encoded once, decoded into float32 sums, and their mean encoded once.
std::size_t beyond_mean_bound(const BlockCode& code, Shape shape, std::size_t peers, Random& random) {
  constexpr std::size_t count = 777;
  const auto codec = Codec::of(code, DType::float32);
  Bytes bytes(codec->encoded_bytes(count));
  std::vector<float> sums(count, -1e30f), mean(count), heard(count);
  std::vector<double> exact(count), ranges(count);  // ranges: the largest of any contribution's block
  for (std::size_t peer = 0; peer < peers; ++peer) {
    auto data = widened(samples<Own<float>>(shape, count, random));
    for (float& value : data) value *= shape == Shape::huge ? 0.125f : 1.0f;  // or sums would overflow
    const auto spans = spans_of(data, block_of(code));
    for (std::size_t i = 0; i < count; ++i) {
      exact[i] += static_cast<double>(data[i]) / static_cast<double>(peers);
      ranges[i] = std::max(ranges[i], range_of(code.kind, spans[i / block_of(code)]));
    }
    CHECK(codec->encode(data.data(), count, {random.next(), 0}, bytes.data()));
    if (peer == 0) codec->decode_set(bytes.data(), count, sums.data());
    if (peer != 0) codec->decode_add(bytes.data(), count, sums.data());
  }
  const auto divisor = static_cast<double>(peers);
  CHECK(codec->encode_sum(sums.data(), count, divisor, {random.next(), 0}, bytes.data(), mean.data()));
  codec->decode(bytes.data(), count, heard.data());
  CHECK(mean == heard);
  std::size_t beyond = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double quanta = (code.stochastic ? 2 : 1) * (ranges[i] / levels_of(code.kind) + 0x1p-133);
    const double sums_error = divisor * 0x1p-23 * (std::fabs(exact[i]) + ranges[i]);
    beyond += !(std::fabs(mean[i] - exact[i]) <= quanta * (1 + 0x1p-12) + sums_error);
  }
  return beyond;
}

}  // namespace

TEST(one_encoding_is_off_by_half_a_quantum_and_by_one_if_stochastic) {
  Random random{5};
  for_floating([&](DType element, auto sample_element) {
    using E = decltype(sample_element);
    for_codes([&](const BlockCode& code) {
      for (const Shape shape : shapes) {
        if (!fits<E>(code.kind, shape)) continue;
        const std::size_t beyond = beyond_bound<E>(code, element, shape, random);
        if (beyond != 0) CHECK_EQ(text(code, element, shape), std::to_string(beyond) + " beyond");
      }
    });
  });
}

TEST(a_mean_of_peers_is_off_by_one_quantum_and_by_two_if_stochastic) {
  Random random{6};
  for (const Quantization kind : kinds) {
    for (const bool stochastic : {false, true}) {
      for (const Shape shape : shapes) {
        for (std::size_t peers = 1; peers <= 8; ++peers) {
          const BlockCode code = usual(kind, stochastic);
          const std::size_t beyond = beyond_mean_bound(code, shape, peers, random);
          if (beyond != 0) CHECK_EQ(text(code, DType::float32, shape), std::to_string(peers) + " peers");
        }
      }
    }
  }
}

TEST(stochastic_rounding_has_no_bias) {
  constexpr std::size_t count = 256, tries = 4000;
  Random random{7};
  for (const Quantization kind : kinds) {
    const auto codec = Codec::of(usual(kind, true), DType::float32);
    const auto data = samples<Own<float>>(Shape::normal, count, random);
    Bytes bytes(codec->encoded_bytes(count));
    std::vector<double> sums(count);
    std::vector<float> back(count);
    for (std::size_t i = 0; i < tries; ++i) {
      CHECK(codec->encode(data.data(), count, {random.next(), i * count}, bytes.data()));
      codec->decode(bytes.data(), count, back.data());
      for (std::size_t j = 0; j < count; ++j) sums[j] += back[j];
    }
    double all = 0;
    std::size_t beyond = 0;
    for (std::size_t j = 0; j < count; ++j) {
      // The block may be split in four by 64 elements: 3 is the largest that the shape gives.
      const double one = quantum(kind, false, -3, 3, data[j].value);
      const double error = (sums[j] / tries - data[j].value) / one;
      beyond += std::fabs(error) > 5 * 0.5 / std::sqrt(tries);  // 5 standard deviations at most
      all += error / count;
    }
    CHECK_EQ(beyond, 0u);
    CHECK(std::fabs(all) < 5 * 0.5 / std::sqrt(tries * count));
  }
}

// Neighbours, both elements of one hash, and blocks beside each other round independently of each other.
TEST(stochastic_rounding_is_uncorrelated) {
  constexpr std::size_t count = 1 << 16;
  const auto codec = Codec::of({Quantization::int8, 256, true}, DType::float32);
  std::vector<float> data(count, 0.5f), back(count);
  for (std::size_t i = 0; i < count; i += 256) data[i] = 127;
  Bytes bytes(codec->encoded_bytes(count));
  CHECK(codec->encode(data.data(), count, {1, 0}, bytes.data()));
  codec->decode(bytes.data(), count, back.data());
  for (const std::size_t apart : {1, 2, 64, 127, 128, 256, 512, 4096}) {
    double sum = 0;
    std::size_t pairs = 0;
    for (std::size_t i = 0; i + apart < count; ++i) {
      if (data[i] != 0.5f || data[i + apart] != 0.5f) continue;
      sum += (back[i] - 0.5) * (back[i + apart] - 0.5) * 4;
      ++pairs;
    }
    CHECK(std::fabs(sum) < 5 * std::sqrt(pairs));
  }
}
