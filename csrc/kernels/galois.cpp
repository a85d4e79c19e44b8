// Picks the instruction set of GF(2^8), once, and the kernel for a pair of factors.

#include "kernels/galois.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/fence.hpp"
#include "kernels/galois_table.hpp"

namespace pccl::kernels {
namespace {

// What GFNI needs beside itself is what the levels of reduce.hpp need.
bool runs(GaloisLevel level) {
  switch (level) {
    case GaloisLevel::scalar:
      return true;
    case GaloisLevel::neon:
      return kernels_at(Level::neon) != nullptr;
    case GaloisLevel::avx2:
      return kernels_at(Level::avx2) != nullptr;
    case GaloisLevel::avx512:
      return kernels_at(Level::avx512) != nullptr;
#if defined(__x86_64__)
    case GaloisLevel::avx2_gfni:
      return runs(GaloisLevel::avx2) && __builtin_cpu_supports("gfni");
    case GaloisLevel::avx512_gfni:
      return runs(GaloisLevel::avx512) && __builtin_cpu_supports("gfni");
#else
    default:
      return false;
#endif
  }
  return false;
}

// The operands of a table's kernel: with one of them it is `incoming`.
struct Choice {
  Kernel kernel;
  Job job;
};

Choice choose(const GaloisTable& table, const GaloisArgs& args) {
  Job job{.out = static_cast<std::byte*>(args.out),
          .incoming = static_cast<const std::byte*>(args.incoming),
          .own = static_cast<const std::byte*>(args.own),
          .count = args.bytes,
          .streaming = args.streaming && args.out != args.incoming && args.out != args.own,
          .incoming_factor = args.incoming_factor,
          .own_factor = args.own_factor};
  const auto swap = [&job] {
    std::swap(job.incoming, job.own);
    std::swap(job.incoming_factor, job.own_factor);
  };
  if (job.incoming_factor == 0 || job.own_factor == 1) swap();
  if (job.own_factor == 0) return {table.multiply, job};
  if (job.incoming_factor != 1) return {table.mix, job};
  return {job.own_factor == 1 ? table.add : table.multiply_add, job};
}

}  // namespace

GaloisLevel GaloisSet::level() const { return table_->level; }

void GaloisSet::combine(const GaloisArgs& args) const {
  if (args.bytes == 0) return;
  if (args.incoming_factor == 0 && args.own_factor == 0) {
    std::memset(args.out, 0, args.bytes);
    return;
  }
  const Choice choice = choose(*table_, args);
  choice.kernel(choice.job);
  fence(args.streaming);
}

void GaloisSet::encode(const GaloisEncodeArgs& args) const {
  const std::size_t sources = args.sources.size();
  for (std::size_t first = 0; first < args.targets.size(); first += encode_targets_max) {
    const auto targets =
        args.targets.subspan(first, std::min(encode_targets_max, args.targets.size() - first));
    EncodeJob job{.targets = targets.data(),
                  .stride = sources,
                  .targets_count = targets.size(),
                  .bytes = args.bytes,
                  .streaming = args.streaming,
                  .adds = args.adds};
    for (std::size_t from = 0; from < sources; from += encode_sources_max, job.adds = true) {
      job.sources = args.sources.data() + from;
      job.sources_count = std::min(encode_sources_max, sources - from);
      job.factors = args.factors + first * sources + from;
      table_->encode(job);
    }
    if (sources == 0 && !args.adds)
      for (std::byte* const target : targets) std::memset(target, 0, args.bytes);
  }
  fence(args.streaming);
}

const GaloisSet* galois_at(GaloisLevel level) {
  static const GaloisSet scalar{scalar_galois()};
  if (level == GaloisLevel::scalar) return &scalar;
  if (!runs(level)) return nullptr;
#if defined(__x86_64__)
  static const GaloisSet avx2{avx2_galois()}, avx512{avx512_galois()};
  static const GaloisSet avx2_gfni{avx2_gfni_galois()}, avx512_gfni{avx512_gfni_galois()};
  if (level == GaloisLevel::avx2) return &avx2;
  if (level == GaloisLevel::avx512) return &avx512;
  if (level == GaloisLevel::avx2_gfni) return &avx2_gfni;
  if (level == GaloisLevel::avx512_gfni) return &avx512_gfni;
#elif defined(__aarch64__)
  static const GaloisSet neon{neon_galois()};
  if (level == GaloisLevel::neon) return &neon;
#endif
  return nullptr;
}

const GaloisSet& best_galois() {
  static const GaloisSet* const chosen = [] {
    const GaloisSet* fastest = nullptr;
    for (const GaloisLevel level : all_galois_levels) {
      if (const GaloisSet* set = galois_at(level)) fastest = set;
    }
    return fastest;
  }();
  return *chosen;
}

}  // namespace pccl::kernels
