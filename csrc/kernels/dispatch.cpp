// Picks the instruction set, once; looks kernels up; composes the rarer functions from them block by block.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/fence.hpp"
#include "kernels/reduce.hpp"
#include "kernels/table.hpp"

namespace pccl::kernels {
namespace {

// Composed passes work through blocks that stay in the first-level cache, so that only the first pass over a
// block reads memory. A multiple of every register, which keeps blocks aligned like the whole.
constexpr std::size_t block_bytes = 8192;

const ElementKernels& kernels_of(const Table& table, DType element) {
  return table.of[static_cast<std::size_t>(element) - 1];
}

Kernel pick(DType element, const Wired& wired, Wire incoming, Wire out) {
  if (accumulator_of(element) == element) return wired.at[0][0];
  return wired.at[incoming == Wire::accumulator][out == Wire::accumulator];
}

const Wired& wired_of(const ElementKernels& kernels, ReduceOp op) {
  switch (op) {
    case ReduceOp::prod:
      return kernels.prod;
    case ReduceOp::min:
      return kernels.min;
    case ReduceOp::max:
      return kernels.max;
    case ReduceOp::sum:
    case ReduceOp::avg:
      break;
  }
  return kernels.sum;
}

std::size_t bytes_of(DType element, Wire wire) {
  return size_of(wire == Wire::element ? element : accumulator_of(element));
}

// What the kernels of this type accept (see reduce.hpp).
double accepted_divisor(DType element, double divisor) {
  if (is_floating(element)) return divisor;
  return divisor >= 1.0 ? std::min(std::trunc(divisor), 0x1p53) : 1.0;  // NaN gives 1
}

Kernel divide_kernel(const Table& table, DType element, Wire in_wire) {
  return kernels_of(table, element)
      .divide[in_wire == Wire::accumulator && accumulator_of(element) != element];
}

std::byte* bytes_at(void* base, std::size_t offset) { return static_cast<std::byte*>(base) + offset; }
const std::byte* bytes_at(const void* base, std::size_t offset) {
  return static_cast<const std::byte*>(base) + offset;
}

// One combination with everything that it needs but memory.
struct Combination {
  const Table& table;
  DType element;
  const Wired& plain;
  const Wired& divided;  // its kernels are null for integers, and where division is not usual
  Wire incoming;
  Wire out;
  double weight;

  void run(const ReduceArgs& args) const {
    const Kernel kernel = pick(element, args.divisor == 1.0 ? plain : divided, incoming, out);
    if (kernel != nullptr) {
      kernel(job(args, 0, args.count));
    } else {
      run_divided(args);
    }
  }

  // Through a block of accumulators on the stack: `out` is written once and may be streamed to.
  void run_divided(const ReduceArgs& args) const {
    alignas(64) std::byte sums[block_bytes];
    const Kernel combine = pick(element, plain, incoming, Wire::accumulator);
    const Kernel divide = out == Wire::element ? divide_kernel(table, element, Wire::accumulator)
                                               : divide_kernel(table, accumulator_of(element), Wire::element);
    for_blocks(args.count, [&](std::size_t first, std::size_t count) {
      Job sum = job(args, first, count);
      Job division = sum;
      sum.out = sums;
      sum.streaming = false;
      combine(sum);
      division.incoming = sums;
      divide(division);
    });
  }

  // Items `first` and following. In place, streaming would only evict what was just read into the cache.
  Job job(const ReduceArgs& args, std::size_t first, std::size_t count) const {
    return Job{.out = bytes_at(args.out, first * bytes_of(element, out)),
               .incoming = bytes_at(args.incoming, first * bytes_of(element, incoming)),
               .own = bytes_at(args.own, first * size_of(element)),
               .count = count,
               .factor = weight,
               .divisor = accepted_divisor(element, args.divisor),
               .streaming = args.streaming && args.out != args.incoming && args.out != args.own};
  }

  template <class Body> void for_blocks(std::size_t count, const Body& body) const {
    const std::size_t step = block_bytes / bytes_of(element, Wire::accumulator);
    for (std::size_t first = 0; first < count; first += step) body(first, std::min(step, count - first));
  }
};

constexpr Wired none{};

Combination combination_of(const Table& table, DType element, ReduceOp op, Wire incoming, Wire out) {
  const ElementKernels& kernels = kernels_of(table, element);
  const bool adds = op == ReduceOp::sum || op == ReduceOp::avg;
  const Wired& divided = adds ? kernels.average : none;
  return Combination{table, element, wired_of(kernels, op), divided, incoming, out, 1.0};
}

// The kernel that combines and keeps in one pass, or null.
Kernel keep_kernel(const Table& table, DType element, ReduceOp op, Wire incoming, double divisor) {
  if (op != ReduceOp::sum && op != ReduceOp::avg) return nullptr;
  const ElementKernels& kernels = kernels_of(table, element);
  const Kernel* const by_wire = divisor == 1.0 ? kernels.sum_keep : kernels.average_keep;
  return by_wire[incoming == Wire::accumulator && accumulator_of(element) != element];
}

}  // namespace

Level Set::level() const { return table_->level; }

void Set::combine(DType element, ReduceOp op, Wire incoming, Wire out, const ReduceArgs& args) const {
  combination_of(*table_, element, op, incoming, out).run(args);
  fence(args.streaming);
}

void Set::combine_keep(DType element, ReduceOp op, Wire incoming, const ReduceArgs& args, void* keep) const {
  const Combination combination = combination_of(*table_, element, op, incoming, Wire::element);
  const Kernel kernel = keep_kernel(*table_, element, op, incoming, args.divisor);
  const Job whole = combination.job(args, 0, args.count);
  if (kernel != nullptr && !whole.streaming) {
    Job with_keep = whole;
    with_keep.keep = bytes_at(keep, 0);
    kernel(with_keep);
  } else {
    const std::size_t item = size_of(element);
    combination.for_blocks(args.count, [&](std::size_t first, std::size_t count) {
      const Job block = combination.job(args, first, count);
      table_->stream_copy(bytes_at(keep, first * item), block.own, count * item);
      combination.run(ReduceArgs{block.out, block.incoming, block.own, count, block.streaming, args.divisor});
    });
  }
  fence(true);
}

bool Set::combine_weighted(DType element, Wire incoming, Wire out, const ReduceArgs& args,
                           double weight) const {
  if (!is_floating(element)) return false;
  const ElementKernels& kernels = kernels_of(*table_, element);
  Combination{*table_, element, kernels.weighted, kernels.weighted_average, incoming, out, weight}.run(args);
  fence(args.streaming);
  return true;
}

bool Set::widen_scaled(DType element, void* out, const void* in, std::size_t count, double factor) const {
  const Kernel kernel = kernels_of(*table_, element).widen;
  if (kernel != nullptr) {
    kernel(Job{.out = bytes_at(out, 0), .incoming = bytes_at(in, 0), .count = count, .factor = factor});
    return true;
  }
  if (factor != 1.0) return false;
  copy(out, in, count * size_of(element), false);
  return true;
}

void Set::scale(DType element, void* data, std::size_t count, double divisor) const {
  finish_avg(element, Wire::element, data, data, count, divisor);
}

void Set::finish_avg(DType element, Wire in_wire, void* out, const void* in, std::size_t count,
                     double divisor, bool streaming) const {
  divide_kernel(*table_, element, in_wire)(Job{.out = bytes_at(out, 0),
                                               .incoming = bytes_at(in, 0),
                                               .count = count,
                                               .divisor = accepted_divisor(element, divisor),
                                               .streaming = streaming && out != in});
  fence(streaming);
}

void Set::copy(void* to, const void* from, std::size_t bytes, bool streaming) const {
  if (bytes == 0 || to == from) return;
  if (streaming) {
    table_->stream_copy(bytes_at(to, 0), bytes_at(from, 0), bytes);
    fence(true);
  } else {
    std::memcpy(to, from, bytes);
  }
}

const Set* kernels_at(Level level) {
  static const Set scalar{scalar_table()};
  if (level == Level::scalar) return &scalar;
#if defined(__x86_64__)
  static const Set avx2{avx2_table()};
  static const Set avx512{avx512_table()};
  // These ask the operating system's support for the registers too.
  const bool has_avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (level == Level::avx2) return has_avx2 ? &avx2 : nullptr;
  if (level == Level::avx512) return has_avx2 && has_avx512 ? &avx512 : nullptr;
#elif defined(__aarch64__)
  static const Set neon{neon_table()};
  if (level == Level::neon) return &neon;
#endif
  return nullptr;
}

const Set& best() {
  static const Set* const chosen = [] {
    const Set* fastest = nullptr;
    for (const Level level : all_levels) {
      if (const Set* set = kernels_at(level)) fastest = set;
    }
    return fastest;
  }();
  return *chosen;
}

}  // namespace pccl::kernels
