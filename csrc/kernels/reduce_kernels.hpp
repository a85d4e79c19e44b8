#pragma once
// The kernels as templates over an instruction set `Isa` (reduce_*.cpp; see lanes.hpp, also for why the
// namespace is unnamed): operations on registers, the pass over memory that all of them share, and the table
// of one Isa.

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/lanes.hpp"
#include "kernels/table.hpp"

namespace pccl::kernels {
namespace {

// --- Operations on registers, built once per call from the job's numbers.

template <class Isa, class T> [[gnu::always_inline]] inline Register<T, Isa::bytes> all_lanes(T value) {
  Register<T, Isa::bytes> lanes;
  for (std::size_t i = 0; i < Isa::bytes / sizeof(T); ++i) lanes[i] = value;
  return lanes;
}

// Which operand's NaN survives, and with which sign, depends on instructions and compilers: one NaN for all.
template <class Isa, class T>
[[gnu::always_inline]] inline Register<T, Isa::bytes> quiet(Register<T, Isa::bytes> value) {
  if constexpr (floating<T>) {
    return value != value ? all_lanes<Isa, T>(static_cast<T>(__builtin_nanf(""))) : value;
  } else {
    return value;
  }
}

template <class Isa, class T> struct Sum {
  using R = Register<T, Isa::bytes>;
  static constexpr bool reads_own = true;
  explicit Sum(const Job&) {}
  [[gnu::always_inline]] R operator()(R incoming, R own) const { return quiet<Isa, T>(incoming + own); }
};

template <class Isa, class T> struct Average {
  using R = Register<T, Isa::bytes>;
  static constexpr bool reads_own = true;
  explicit Average(const Job& job) : divisor(all_lanes<Isa, T>(static_cast<T>(job.divisor))) {}
  [[gnu::always_inline]] R operator()(R incoming, R own) const {
    return quiet<Isa, T>((incoming + own) / divisor);
  }
  R divisor;
};

template <class Isa, class T> struct Prod {
  using R = Register<T, Isa::bytes>;
  static constexpr bool reads_own = true;
  explicit Prod(const Job&) {}
  [[gnu::always_inline]] R operator()(R incoming, R own) const { return quiet<Isa, T>(incoming * own); }
};

// Of two zeros of different sign, or'ing both orders keeps the sign and and'ing drops it; for other values
// both orders give the same.
template <class Isa, class T, bool smallest> struct Extreme {
  using R = Register<T, Isa::bytes>;
  static constexpr bool reads_own = true;
  explicit Extreme(const Job&) {}
  [[gnu::always_inline]] static R pick(R a, R b) {
    if constexpr (smallest)
      return a < b ? a : b;
    else
      return a > b ? a : b;
  }
  [[gnu::always_inline]] R operator()(R incoming, R own) const {
    if constexpr (floating<T>) {
      using Bits = Register<typename BitsOf<T>::Type, Isa::bytes>;
      const auto one = (Bits)pick(incoming, own);
      const auto other = (Bits)pick(own, incoming);
      const R nan = all_lanes<Isa, T>(static_cast<T>(__builtin_nanf("")));
      const R value = smallest ? (R)(one | other) : (R)(one & other);
      return incoming != incoming ? nan : (own != own ? nan : value);
    } else {
      return pick(incoming, own);
    }
  }
};
template <class Isa, class T> using Min = Extreme<Isa, T, true>;
template <class Isa, class T> using Max = Extreme<Isa, T, false>;

template <class Isa, class T> struct Weighted {
  using R = Register<T, Isa::bytes>;
  static constexpr bool reads_own = true;
  explicit Weighted(const Job& job) : weight(all_lanes<Isa, T>(static_cast<T>(job.factor))) {}
  [[gnu::always_inline]] R operator()(R incoming, R own) const {
    return quiet<Isa, T>(incoming + weight * own);
  }
  R weight;
};

template <class Isa, class T> struct WeightedAverage {
  using R = Register<T, Isa::bytes>;
  static constexpr bool reads_own = true;
  explicit WeightedAverage(const Job& job)
      : weight(all_lanes<Isa, T>(static_cast<T>(job.factor))),
        divisor(all_lanes<Isa, T>(static_cast<T>(job.divisor))) {}
  [[gnu::always_inline]] R operator()(R incoming, R own) const {
    return quiet<Isa, T>((incoming + weight * own) / divisor);
  }
  R weight, divisor;
};

template <class Isa, class T> struct Times {
  using R = Register<T, Isa::bytes>;
  static constexpr bool reads_own = false;
  explicit Times(const Job& job) : factor(all_lanes<Isa, T>(static_cast<T>(job.factor))) {}
  [[gnu::always_inline]] R operator()(R in) const { return quiet<Isa, T>(in * factor); }
  R factor;
};

template <class Isa, class T> struct Divided {
  using R = Register<T, Isa::bytes>;
  static constexpr bool reads_own = false;
  explicit Divided(const Job& job) : divisor(all_lanes<Isa, T>(static_cast<T>(job.divisor))) {}
  [[gnu::always_inline]] R operator()(R in) const { return quiet<Isa, T>(in / divisor); }
  R divisor;
};

template <class Isa, class T> struct Same {
  using R = Register<T, Isa::bytes>;
  static constexpr bool reads_own = false;
  explicit Same(const Job&) {}
  [[gnu::always_inline]] R operator()(R in) const { return in; }
};

// --- One pass over memory.

struct Cursor {
  std::byte* out;
  const std::byte* incoming;
  const std::byte* own;
  std::byte* keep;
};

// `own` comes from main memory where `incoming` was just received into the cache. Asking for it so far ahead
// made sums of such 256 KiB chunks 15-18 % faster (and sums of two cold operands 4 % slower).
constexpr std::size_t prefetch_bytes = 4096;
constexpr std::size_t cache_line_bytes = 64;

template <class Isa, class In, class Own, class Out, template <class, class> class Operation,
          bool keeps = false>
struct Pass {
  using Acc = typename Own::Acc;
  using Op = Operation<Isa, Acc>;
  using OwnRaw = typename Own::Raw;
  using OutRaw = typename Out::Raw;
  static constexpr std::size_t lanes = Isa::bytes / sizeof(Acc);
  static constexpr std::size_t in_bytes = lanes * sizeof(typename In::Raw);
  static constexpr std::size_t own_bytes = Op::reads_own ? lanes * sizeof(OwnRaw) : 0;
  static constexpr std::size_t out_bytes = lanes * sizeof(OutRaw);
  static constexpr std::size_t keep_bytes = keeps ? own_bytes : 0;
  static constexpr std::size_t unrolled = Isa::unrolled;

  template <class Raw> using InMemory = typename RegisterOf<Raw, lanes * sizeof(Raw)>::InMemory;
  template <class Raw>
  [[gnu::always_inline]] static Register<Raw, lanes * sizeof(Raw)> load(const std::byte* from) {
    return *reinterpret_cast<const InMemory<Raw>*>(from);
  }
  template <class Raw, bool streaming>
  [[gnu::always_inline]] static void store(std::byte* to, Register<Raw, lanes * sizeof(Raw)> value) {
    if constexpr (streaming)
      Isa::stream(to, value);
    else
      *reinterpret_cast<InMemory<Raw>*>(to) = value;
  }

  template <bool streaming>
  [[gnu::always_inline]] static auto result(const Cursor& at, std::size_t i, const Op& op) {
    const auto incoming = In::template widen<Isa>(load<typename In::Raw>(at.incoming + i * in_bytes));
    if constexpr (Op::reads_own) {
      const auto own = load<OwnRaw>(at.own + i * own_bytes);
      if constexpr (keeps) store<OwnRaw, streaming>(at.keep + i * keep_bytes, own);
      return Out::template narrow<Isa>(op(incoming, Own::template widen<Isa>(own)));
    } else {
      return Out::template narrow<Isa>(op(incoming));
    }
  }

  // Loads before stores to out, which may be one of the inputs. Only the undo copy streams if there is one.
  template <std::size_t registers, bool streaming>
  [[gnu::always_inline]] static void step(Cursor& at, const Op& op) {
    Register<OutRaw, out_bytes> results[registers];
#pragma GCC unroll 8
    for (std::size_t i = 0; i < registers; ++i) results[i] = result<streaming>(at, i, op);
#pragma GCC unroll 8
    for (std::size_t i = 0; i < registers; ++i) {
      store<OutRaw, streaming && !keeps>(at.out + i * out_bytes, results[i]);
    }
    at.out += registers * out_bytes;
    at.incoming += registers * in_bytes;
    at.own += registers * own_bytes;
    at.keep += registers * keep_bytes;
  }

  // Fewer items than a register has: through registers in memory, so that the arithmetic exists once.
  [[gnu::noinline]] static Cursor partial(const Cursor at, std::size_t count, const Op& op) {
    alignas(64) std::byte incoming[in_bytes] = {};
    alignas(64) std::byte own[own_bytes + 1] = {};
    alignas(64) std::byte out[out_bytes];
    const std::size_t in_used = count * (in_bytes / lanes);
    const std::size_t own_used = count * (own_bytes / lanes);
    const std::size_t out_used = count * (out_bytes / lanes);
    __builtin_memcpy(incoming, at.incoming, in_used);
    if constexpr (Op::reads_own) __builtin_memcpy(own, at.own, own_used);
    if constexpr (keeps) __builtin_memcpy(at.keep, own, own_used);
    std::byte kept[keep_bytes + 1];
    Cursor here{out, incoming, own, kept};
    step<1, false>(here, op);
    __builtin_memcpy(at.out, out, out_used);
    const std::size_t keep_used = keeps ? own_used : 0;
    return Cursor{at.out + out_used, at.incoming + in_used, at.own + own_used, at.keep + keep_used};
  }

  // Cursor and operation by value: stores could alias what they point to, and both belong in registers.
  template <bool streaming> static Cursor whole_registers(Cursor at, std::size_t registers, const Op op) {
    for (; registers >= unrolled; registers -= unrolled) {
#pragma GCC unroll 8
      for (std::size_t ahead = 0; ahead < unrolled * own_bytes; ahead += cache_line_bytes) {
        __builtin_prefetch(at.own + prefetch_bytes + ahead);
      }
      step<unrolled, streaming>(at, op);
    }
    for (; registers > 0; --registers) step<1, streaming>(at, op);
    return at;
  }

  static void run(const Job& job) {
    constexpr std::size_t item = keeps ? sizeof(OwnRaw) : sizeof(OutRaw);
    const Op op(job);
    Cursor at{job.out, job.incoming, job.own, job.keep};
    std::size_t count = job.count;
    bool streaming = job.streaming || keeps;
    if (count >= 8 * lanes) {  // worth aligning the stores; streaming ones must be
      const std::size_t beyond = reinterpret_cast<std::uintptr_t>(keeps ? at.keep : at.out) % (lanes * item);
      const bool alignable = beyond % item == 0;
      const std::size_t head = beyond == 0 || !alignable ? 0 : lanes - beyond / item;
      if (head > 0) at = partial(at, head, op);
      count -= head;
      streaming = streaming && alignable;
    } else {
      streaming = false;
    }
    const std::size_t registers = count / lanes;
    at = streaming ? whole_registers<true>(at, registers, op) : whole_registers<false>(at, registers, op);
    if (count % lanes > 0) partial(at, count % lanes, op);
  }
};

// Integer division, truncated; a whole divisor from 1 to 2^53. Up to 32 bits in double, for which there are
// vector instructions: a quotient of such integers cannot round up to the next integer.
template <class T> void divide_integers(const Job& job) {
  using Divisor = std::conditional_t<(sizeof(T) <= 4), double, T>;
  const auto by = static_cast<Divisor>(job.divisor);
#pragma GCC ivdep
  for (std::size_t i = 0; i < job.count; ++i) {
    T item;
    __builtin_memcpy(&item, job.incoming + i * sizeof(T), sizeof(T));
    item = static_cast<T>(static_cast<Divisor>(item) / by);
    __builtin_memcpy(job.out + i * sizeof(T), &item, sizeof(T));
  }
}

template <class Isa> void stream_copy(std::byte* to, const std::byte* from, std::size_t bytes) {
  Pass<Isa, Plain<std::uint8_t>, Plain<std::uint8_t>, Plain<std::uint8_t>, Same>::run(
      Job{.out = to, .incoming = from, .count = bytes, .streaming = true});
}

// --- The table.

template <class Isa, class Element, template <class, class> class Operation> constexpr Wired wired() {
  if constexpr (std::is_same_v<typename Element::Raw, typename Element::Acc>) {
    return Wired{{{Pass<Isa, Element, Element, Element, Operation>::run, nullptr}, {nullptr, nullptr}}};
  } else {
    using Acc = Plain<typename Element::Acc>;
    return Wired{
        {{Pass<Isa, Element, Element, Element, Operation>::run,
          Pass<Isa, Element, Element, Acc, Operation>::run},
         {Pass<Isa, Acc, Element, Element, Operation>::run, Pass<Isa, Acc, Element, Acc, Operation>::run}}};
  }
}

template <class Isa, class Element> constexpr ElementKernels floating_kernels() {
  using Acc = Plain<typename Element::Acc>;
  return ElementKernels{
      .sum = wired<Isa, Element, Sum>(),
      .prod = wired<Isa, Element, Prod>(),
      .min = wired<Isa, Element, Min>(),
      .max = wired<Isa, Element, Max>(),
      .weighted = wired<Isa, Element, Weighted>(),
      .average = wired<Isa, Element, Average>(),
      .weighted_average = wired<Isa, Element, WeightedAverage>(),
      .sum_keep = {Pass<Isa, Element, Element, Element, Sum, true>::run,
                   Pass<Isa, Acc, Element, Element, Sum, true>::run},
      .average_keep = {Pass<Isa, Element, Element, Element, Average, true>::run,
                       Pass<Isa, Acc, Element, Element, Average, true>::run},
      .divide = {Pass<Isa, Element, Element, Element, Divided>::run,
                 Pass<Isa, Acc, Element, Element, Divided>::run},
      .widen = Pass<Isa, Element, Element, Acc, Times>::run,
  };
}

// Sums and products are the same for signed and unsigned integers, and only unsigned ones wrap.
template <class Isa, class T> constexpr ElementKernels integer_kernels() {
  using Wraps = Plain<std::make_unsigned_t<T>>;
  return ElementKernels{
      .sum = wired<Isa, Wraps, Sum>(),
      .prod = wired<Isa, Wraps, Prod>(),
      .min = wired<Isa, Plain<T>, Min>(),
      .max = wired<Isa, Plain<T>, Max>(),
      .weighted = {},
      .average = {},
      .weighted_average = {},
      .sum_keep = {Pass<Isa, Wraps, Wraps, Wraps, Sum, true>::run, nullptr},
      .average_keep = {},
      .divide = {divide_integers<T>, nullptr},
      .widen = nullptr,
  };
}

template <class Isa> constexpr Table make_table(Level level) {
  return Table{level,
               {
                   floating_kernels<Isa, Plain<float>>(),
                   floating_kernels<Isa, Plain<double>>(),
                   floating_kernels<Isa, Float16>(),
                   floating_kernels<Isa, BFloat16>(),
                   integer_kernels<Isa, std::int8_t>(),
                   integer_kernels<Isa, std::int16_t>(),
                   integer_kernels<Isa, std::int32_t>(),
                   integer_kernels<Isa, std::int64_t>(),
                   integer_kernels<Isa, std::uint8_t>(),
                   integer_kernels<Isa, std::uint16_t>(),
                   integer_kernels<Isa, std::uint32_t>(),
                   integer_kernels<Isa, std::uint64_t>(),
               },
               stream_copy<Isa>};
}

}  // namespace
}  // namespace pccl::kernels
