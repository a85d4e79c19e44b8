// Equal bits across machines: what the kernels give on one pseudo-random corpus (NaNs, infinities, subnormals
// and -0 among it), as digests that every instruction set has to meet, here and on every other architecture.
// Whoever changes a result on purpose takes the new digests from the failures.

#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/sha256.hpp"
#include "check.hpp"
#include "kernels/galois.hpp"
#include "quantize_reference.hpp"

namespace {

using namespace pccl;
using namespace pccl::kernels_check;
using kernels::BlockCode;
using kernels::Codec;

// The first 8 bytes of the SHA-256 of all outputs.
const std::map<std::string_view, std::string_view> known{
    {"bf16 of bfloat16", "66d6c35fd8232b84"}, {"bf16 of float16", "3ddf69765b579889"},
    {"bf16 of float32", "c2a3c04f8c6fa370"},  {"bf16 of float64", "b303b985b2240beb"},
    {"combine bfloat16", "fa58db4d3d091468"}, {"combine float16", "0f7ee9eade33618a"},
    {"combine float32", "8c9e8d92be63aa39"},  {"combine float64", "6c75c96b088118d7"},
    {"combine int16", "ac29d3482028f7b3"},    {"combine int32", "2dde17dea57f30c5"},
    {"combine int64", "3e199224d703b164"},    {"combine int8", "17bc885f998f1dc8"},
    {"combine uint16", "60fa97dd83d945e5"},   {"combine uint32", "20838bf8d3d7a5f7"},
    {"combine uint64", "1ab119de2c6c2052"},   {"combine uint8", "43e7ed235c2f1b74"},
    {"fp8 of bfloat16", "c8dcb4ab43b1d18e"},  {"fp8 of float16", "66586dfc14e0ad5b"},
    {"fp8 of float32", "b8b23d44cd159fb8"},   {"fp8 of float64", "c1f25da853b90a68"},
    {"galois field", "37610f15acc334bd"},     {"int4 of bfloat16", "f6c678604d9615bb"},
    {"int4 of float16", "65d5c82845e175e2"},  {"int4 of float32", "fbfdcbaaaf00d22a"},
    {"int4 of float64", "3256a7099f4a065a"},  {"int8 of bfloat16", "62983e0aebeadee5"},
    {"int8 of float16", "d8174267ef9b5c31"},  {"int8 of float32", "a8238a6b099c2121"},
    {"int8 of float64", "2792b40e1f04a107"},  {"scale bfloat16", "b770583bb5a89b33"},
    {"scale float16", "b9dac062fa3911f5"},    {"scale float32", "742cfde391a2350b"},
    {"scale float64", "dba133362f6cdffb"},    {"scale int16", "aa04cb295f9c2bfb"},
    {"scale int32", "c7e7444731cc8996"},      {"scale int64", "f03e8cfab19c99c6"},
    {"scale int8", "e5669ddeba4c49ff"},       {"scale uint16", "3993672058d0cfdf"},
    {"scale uint32", "733c9438af92d235"},     {"scale uint64", "132a28d07f50a1ef"},
    {"scale uint8", "1ccab7c50d124ac8"},      {"uint8 of bfloat16", "847f4e1c89376c03"},
    {"uint8 of float16", "1e2e3745762f34bb"}, {"uint8 of float32", "e8a2cd32f5ed6893"},
    {"uint8 of float64", "868d668c47410d88"},
};

class Digest {
 public:
  void add(const void* data, std::size_t bytes) {
    const auto* first = static_cast<const std::uint8_t*>(data);
    all_.insert(all_.end(), first, first + bytes);
  }
  void add(const std::vector<std::uint8_t>& bytes) { add(bytes.data(), bytes.size()); }
  std::string text() const {
    const auto hash = sha256(all_);
    std::string hex;
    for (std::size_t i = 0; i < 8; ++i) {
      for (const int digit : {hash[i] >> 4, hash[i] & 15}) hex += "0123456789abcdef"[digit];
    }
    return hex;
  }

 private:
  std::vector<std::uint8_t> all_;
};

template <class Set> void hold(const std::string& what, const Set& set, const Digest& digest) {
  const auto at = known.find(what);
  const std::string wanted = at == known.end() ? "nothing" : std::string(at->second);
  const std::string level = std::to_string(static_cast<int>(set.level()));
  CHECK_EQ("{\"" + what + "\", \"" + digest.text() + "\"}, level " + level,
           "{\"" + what + "\", \"" + wanted + "\"}, level " + level);
}

constexpr std::size_t count = 4099;

template <class T> std::vector<std::uint8_t> corpus(std::uint64_t seed) {
  Random random{seed};
  std::vector<std::uint8_t> bytes(count * sizeof(T));
  for (std::size_t i = 0; i < count; ++i) {
    const T value = item<T>(random);
    std::memcpy(bytes.data() + i * sizeof(T), &value, sizeof(T));
  }
  return bytes;
}

// As elements and as accumulators.
template <class E> struct Operands {
  std::vector<std::uint8_t> narrow = corpus<E>(71), own = corpus<E>(72);
  std::vector<std::uint8_t> wide = corpus<Own<typename E::Acc>>(73);
  const void* incoming(Wire wire) const { return wire == Wire::element ? narrow.data() : wide.data(); }
};

template <class E> void add_combinations(Digest& digest, const kernels::Set& set, DType element) {
  const Operands<E> operands;
  for_all_wires(element, [&](Wire incoming, Wire out) {
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::avg, ReduceOp::prod, ReduceOp::min, ReduceOp::max}) {
      for (const double divisor : {1.0, 3.0}) {
        std::vector<std::uint8_t> result(count * bytes_of(element, out)), kept(count * sizeof(E));
        const ReduceArgs args{.out = result.data(),
                              .incoming = operands.incoming(incoming),
                              .own = operands.own.data(),
                              .count = count,
                              .divisor = divisor};
        set.combine(element, op, incoming, out, args);
        digest.add(result);
        if (out != Wire::element) continue;
        set.combine_keep(element, op, incoming, args, kept.data());
        digest.add(result);
        CHECK(kept == operands.own);
      }
    }
  });
}

template <class E> void add_scalings(Digest& digest, const kernels::Set& set, DType element) {
  const Operands<E> operands;
  std::vector<std::uint8_t> narrow(count * sizeof(E)), wide(operands.wide.size());
  for (const double divisor : {1.0, 3.0, 1000.0}) {
    set.finish_avg(element, Wire::accumulator, narrow.data(), operands.wide.data(), count, divisor);
    digest.add(narrow);
    set.finish_avg(element, Wire::element, narrow.data(), operands.narrow.data(), count, divisor);
    digest.add(narrow);
  }
  CHECK(set.widen_scaled(element, wide.data(), operands.own.data(), count, is_floating(element) ? 0.3 : 1.0));
  digest.add(wide);
  if (!is_floating(element)) return;
  for_all_wires(element, [&](Wire incoming, Wire out) {
    for (const double divisor : {1.0, 5.5}) {
      std::vector<std::uint8_t> result(count * bytes_of(element, out));
      CHECK(set.combine_weighted(element, incoming, out,
                                 {.out = result.data(),
                                  .incoming = operands.incoming(incoming),
                                  .own = operands.own.data(),
                                  .count = count,
                                  .divisor = divisor},
                                 0.1));
      digest.add(result);
    }
  });
}

// Any finite numbers of which float32 can hold the size.
template <class E> std::vector<std::uint8_t> finite_corpus(std::uint64_t seed) {
  auto bytes = corpus<E>(seed);
  for (std::size_t i = 0; i < count; ++i) {
    E value;
    std::memcpy(&value, bytes.data() + i * sizeof(E), sizeof(E));
    if (value.acc() > -1e37f && value.acc() < 1e37f) continue;
    value = E::from(static_cast<float>(i % 97) - 40);
    std::memcpy(bytes.data() + i * sizeof(E), &value, sizeof(E));
  }
  return bytes;
}

template <class E> void add_codes(Digest& digest, Level level, const BlockCode& code, DType element) {
  const auto data = finite_corpus<E>(74);
  const auto codec = Codec::at(level, code, element);
  REQUIRE(codec.has_value());
  std::vector<std::uint8_t> encoded(codec->encoded_bytes(count)), decoded(count * sizeof(E));
  std::vector<std::uint8_t> sums(count * sizeof(typename E::Acc));
  CHECK(codec->encode(data.data(), count, {5, 4096}, encoded.data()));
  codec->decode(encoded.data(), count, decoded.data());
  codec->decode_set(encoded.data(), count, sums.data(), 0.7);
  codec->decode_add(encoded.data(), count, sums.data(), 0.2);
  for (const auto* output : {&encoded, &decoded, &sums}) digest.add(*output);
  CHECK(codec->encode_sum(sums.data(), count, 3.0, {6, 4096}, encoded.data(), decoded.data()));
  for (const auto* output : {&encoded, &decoded}) digest.add(*output);
}

}  // namespace

TEST(reductions) {
  for_all_dtypes([](DType element, auto kind) {
    for (const kernels::Set* set : all_levels()) {
      Digest combined, scaled;
      add_combinations<decltype(kind)>(combined, *set, element);
      add_scalings<decltype(kind)>(scaled, *set, element);
      hold("combine " + std::string(name(element)), *set, combined);
      hold("scale " + std::string(name(element)), *set, scaled);
    }
  });
}

TEST(codes) {
  quantize_check::for_floating([](DType element, auto kind) {
    for (const kernels::Set* set : all_levels()) {
      for (const Quantization code : quantize_check::kinds) {
        Digest digest;
        for (const bool stochastic : {false, true}) {
          const BlockCode about{code, kernels::default_block(code), stochastic};
          add_codes<decltype(kind)>(digest, set->level(), about, element);
        }
        hold(std::string(name(code)) + " of " + std::string(name(element)), *set, digest);
      }
    }
  });
}

TEST(galois_field) {
  const auto incoming = corpus<Own<std::uint8_t>>(75), own = corpus<Own<std::uint8_t>>(76);
  for (const kernels::GaloisLevel level : kernels::all_galois_levels) {
    const auto* set = kernels::galois_at(level);
    if (set == nullptr) continue;
    Digest digest;
    for (unsigned factor = 0; factor < 256; ++factor) {
      for (const std::uint8_t other : {0, 1, 0x8e}) {
        std::vector<std::uint8_t> out(count);
        set->combine({.out = out.data(),
                      .incoming = incoming.data(),
                      .own = own.data(),
                      .bytes = count,
                      .incoming_factor = other,
                      .own_factor = static_cast<std::uint8_t>(factor)});
        digest.add(out);
      }
    }
    hold("galois field", *set, digest);
  }
}
