#pragma once
// Many sources into several sums of products, in one pass over memory. Templates over an instruction set
// `Isa`: see galois_kernels.hpp. Unnamed namespace: see lanes.hpp.

#include <cstddef>
#include <cstdint>

#include "kernels/galois_table.hpp"
#include "kernels/lanes.hpp"

namespace pccl::kernels {
namespace {

template <class Isa> using ByteRegister = Register<std::uint8_t, Isa::bytes>;

// The processor's own prefetchers follow few streams at once and stop at the ends of pages. Asking for the
// sources of the next round made sums from memory up to a third faster; twice as far ahead, lines of 8 and
// more blocks that lie alike push each other out of the first-level cache.
constexpr std::size_t source_ahead_bytes = 256;

// `targets` sums from one reading of the sources. `plain_first`: all factors of the first target are 1.
template <class Isa, std::size_t targets, bool plain_first> struct Encode {
  using R = ByteRegister<Isa>;
  using InMemory = typename RegisterOf<std::uint8_t, Isa::bytes>::InMemory;
  using Packed = typename Isa::Packed;
  using Factor = typename Isa::Factor;
  // More loads on their way than one register at a time would have.
  static constexpr std::size_t fit = Isa::sums / targets;
  static constexpr std::size_t unrolled = fit > 4 ? 4 : (fit == 0 ? 1 : fit);

  // What a loop needs; factors lie source by source.
  struct Plan {
    std::byte* out[targets];
    const std::byte* const* sources;
    std::size_t sources_count;
    const Packed* factors;
    bool adds;
  };

  // `count` bytes of a register, all or fewer.
  template <bool whole> [[gnu::always_inline]] static R load(const std::byte* from, std::size_t count) {
    if constexpr (whole) return *reinterpret_cast<const InMemory*>(from);
    alignas(64) std::uint8_t lanes[Isa::bytes] = {};
    __builtin_memcpy(lanes, from, count);
    return *reinterpret_cast<const R*>(lanes);
  }
  template <bool whole, bool streaming>
  [[gnu::always_inline]] static void store(std::byte* to, R value, std::size_t count) {
    if constexpr (!whole)
      __builtin_memcpy(to, &value, count);
    else if constexpr (streaming)
      Isa::stream(to, value);
    else
      *reinterpret_cast<InMemory*>(to) = value;
  }

  template <std::size_t registers, bool whole, bool streaming>
  [[gnu::always_inline]] static void step(const Plan& plan, std::size_t at, std::size_t count = 0) {
    R sums[targets][registers] = {};
    if (plan.adds) {
#pragma GCC unroll 8
      for (std::size_t t = 0; t < targets; ++t)
#pragma GCC unroll 8
        for (std::size_t i = 0; i < registers; ++i)
          sums[t][i] = load<whole>(plan.out[t] + at + i * Isa::bytes, count);
    }
    const Packed* packed = plan.factors;
    for (std::size_t s = 0; s < plan.sources_count; ++s, packed += targets) {
      const std::byte* const from = plan.sources[s] + at;
      R values[registers];
#pragma GCC unroll 8
      for (std::size_t i = 0; i < registers; ++i) {
        values[i] = load<whole>(from + i * Isa::bytes, count);
        if constexpr (whole) {
          if ((i * Isa::bytes) % 64 == 0) __builtin_prefetch(from + source_ahead_bytes + i * Isa::bytes);
        }
      }
#pragma GCC unroll 8
      for (std::size_t t = 0; t < targets; ++t) {
        if (plain_first && t == 0) {
#pragma GCC unroll 8
          for (std::size_t i = 0; i < registers; ++i) sums[t][i] ^= values[i];
        } else {
          const Factor factor(packed[t]);
#pragma GCC unroll 8
          for (std::size_t i = 0; i < registers; ++i) sums[t][i] ^= factor.times(values[i]);
        }
      }
    }
#pragma GCC unroll 8
    for (std::size_t t = 0; t < targets; ++t)
#pragma GCC unroll 8
      for (std::size_t i = 0; i < registers; ++i)
        store<whole, streaming>(plan.out[t] + at + i * Isa::bytes, sums[t][i], count);
  }

  [[gnu::noinline]] static void partial(const Plan& plan, std::size_t at, std::size_t count) {
    step<1, false, false>(plan, at, count);
  }

  template <bool streaming>
  [[gnu::noinline]] static void whole_registers(const Plan plan, std::size_t at, std::size_t end) {
    for (; end - at >= unrolled * Isa::bytes; at += unrolled * Isa::bytes)
      step<unrolled, true, streaming>(plan, at);
    for (; at < end; at += Isa::bytes) step<1, true, streaming>(plan, at);
  }

  // How far the targets are from a register's boundary, where that is the same for all of them.
  static bool aligned_alike(const Plan& plan, std::size_t& head) {
    const auto beyond = [&](std::size_t t) {
      return reinterpret_cast<std::uintptr_t>(plan.out[t]) % Isa::bytes;
    };
    for (std::size_t t = 1; t < targets; ++t)
      if (beyond(t) != beyond(0)) return false;
    head = beyond(0) == 0 ? 0 : Isa::bytes - beyond(0);
    return true;
  }

  static void run(const EncodeJob& job) {
    Packed factors[encode_sources_max * targets];
    Plan plan{{}, job.sources, job.sources_count, factors, job.adds};
    for (std::size_t t = 0; t < targets; ++t) {
      plan.out[t] = job.targets[t];
      for (std::size_t s = 0; s < job.sources_count; ++s)
        factors[s * targets + t] = Isa::every.of[job.factors[t * job.stride + s]];
    }
    std::size_t at = 0;
    bool streaming = job.streaming && job.bytes >= 8 * Isa::bytes && aligned_alike(plan, at);
    if (!streaming) at = 0;
    if (at > 0) partial(plan, 0, at);
    const std::size_t end = job.bytes - (job.bytes - at) % Isa::bytes;
    if (streaming)
      whole_registers<true>(plan, at, end);
    else
      whole_registers<false>(plan, at, end);
    if (end < job.bytes) partial(plan, end, job.bytes - end);
  }
};

template <class Isa, std::size_t targets> void encode_targets(const EncodeJob& job) {
  bool plain = true;
  for (std::size_t s = 0; s < job.sources_count; ++s) plain = plain && job.factors[s] == 1;
  if (plain)
    Encode<Isa, targets, true>::run(job);
  else
    Encode<Isa, targets, false>::run(job);
}

template <class Isa> void encode(const EncodeJob& job) {
  switch (job.targets_count) {
    case 1:
      return encode_targets<Isa, 1>(job);
    case 2:
      return encode_targets<Isa, 2>(job);
    case 3:
      return encode_targets<Isa, 3>(job);
    case 4:
      return encode_targets<Isa, 4>(job);
    case 5:
      return encode_targets<Isa, 5>(job);
    case 6:
      return encode_targets<Isa, 6>(job);
  }
}

}  // namespace
}  // namespace pccl::kernels
