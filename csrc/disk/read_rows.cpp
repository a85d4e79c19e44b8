#include "disk/read_rows.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "disk/bounce_buffers.hpp"
#include "kernels/reduce.hpp"

namespace pccl::disk {

namespace {

// One past the last byte of `count` rows, or that there is no such number.
bool reach(std::uint64_t begin, std::uint64_t bytes, std::uint64_t count, std::uint64_t stride,
           std::uint64_t& end) {
  std::uint64_t last = 0;
  return !__builtin_mul_overflow(count - 1, stride, &last) && !__builtin_add_overflow(begin, last, &end) &&
         !__builtin_add_overflow(end, bytes, &end);
}

bool is_empty(const ReadRun& run) { return run.count == 0 || run.bytes == 0; }

std::uint64_t end_of(const ReadRun& run) {
  return run.file_offset + (run.count - 1) * run.file_stride + run.bytes;
}

const char* wrong_with(const ReadRun& run, std::uint64_t file_bytes) {
  if (is_empty(run)) return nullptr;
  std::uint64_t end = 0;
  if (!reach(run.file_offset, run.bytes, run.count, run.file_stride, end) || end > file_bytes)
    return "reaches beyond the file";
  if (run.to == nullptr) return "has no memory to go to";
  if (run.count > 1 && run.memory_stride < run.bytes) return "has rows that overlap in memory";
  if (!reach(reinterpret_cast<std::uintptr_t>(run.to), run.bytes, run.count, run.memory_stride, end))
    return "reaches beyond all memory";
  return nullptr;
}

Error usage(const ReadPlan& plan, const std::string& what) {
  return {ErrorCode::usage, "the plan to read " + plan.path + " " + what};
}

// Rows without gaps are one row.
ReadRun joined(ReadRun run) {
  if (run.count == 1 || (run.file_stride == run.bytes && run.memory_stride == run.bytes)) {
    run.bytes *= run.count;
    run.count = 1;
    run.file_stride = run.memory_stride = run.bytes;
  }
  return run;
}

// Past the caches: nobody reads it soon, and lines that are written over as a whole need not be read before.
// While a device fills memory its bandwidth counts: with plain stores a load took a tenth more.
constexpr std::size_t streamed_from = 64u << 10;

void copy_row(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes < streamed_from)
    std::memcpy(to, from, bytes);
  else
    kernels::copy(to, from, bytes, true);
}

template <std::size_t bytes>
void copy_small(std::byte* to, std::uint64_t to_stride, const std::byte* from, std::uint64_t from_stride,
                std::uint64_t count) {
  for (; count > 0; --count, to += to_stride, from += from_stride) std::memcpy(to, from, bytes);
}

void copy_whole(std::byte* to, std::uint64_t to_stride, const std::byte* from, std::uint64_t from_stride,
                std::uint64_t count, std::uint64_t bytes) {
  switch (bytes) {
    case 2:
      return copy_small<2>(to, to_stride, from, from_stride, count);
    case 4:
      return copy_small<4>(to, to_stride, from, from_stride, count);
    case 8:
      return copy_small<8>(to, to_stride, from, from_stride, count);
    case 16:
      return copy_small<16>(to, to_stride, from, from_stride, count);
    default:
      for (; count > 0; --count, to += to_stride, from += from_stride) copy_row(to, from, bytes);
  }
}

// Row number `row`, cut to the extent.
std::uint64_t copy_cut(const ReadRun& run, std::uint64_t row, const Extent& extent, const std::byte* from) {
  const auto row_begin = run.file_offset + row * run.file_stride;
  const auto begin = std::max(row_begin, extent.begin), end = std::min(row_begin + run.bytes, extent.end);
  if (begin >= end) return 0;
  copy_row(run.to + row * run.memory_stride + (begin - row_begin), from + (begin - extent.begin),
           end - begin);
  return end - begin;
}

}  // namespace

Error wrong_with(const ReadPlan& plan) {
  const auto block = plan.block_bytes;
  if (block == 0 || block % page_bytes != 0 || block > bounce_bytes)
    return usage(plan,
                 "has blocks of " + std::to_string(block) + " bytes; a multiple of 4096 up to 16 MiB works");
  const auto blocks = plan.file_bytes / block + (plan.file_bytes % block != 0 ? 1 : 0);
  if (plan.crcs.size() != blocks || plan.file_bytes > std::uint64_t(INT64_MAX) - page_bytes)
    return usage(plan, "has " + std::to_string(plan.crcs.size()) + " checksums for " +
                           std::to_string(blocks) + " blocks (" + std::to_string(plan.file_bytes) +
                           " bytes)");
  for (std::size_t i = 0; i < plan.runs.size(); ++i) {
    if (const auto* what = wrong_with(plan.runs[i], plan.file_bytes))
      return usage(plan, "contradicts itself: run " + std::to_string(i) + " " + what + " (offset " +
                             std::to_string(plan.runs[i].file_offset) + ", " +
                             std::to_string(plan.runs[i].count) + " rows of " +
                             std::to_string(plan.runs[i].bytes) + " bytes, every " +
                             std::to_string(plan.runs[i].file_stride) + "; the file has " +
                             std::to_string(plan.file_bytes) + ")");
  }
  return {};
}

ReadRows::ReadRows(const ReadPlan& plan) : file_bytes_(plan.file_bytes), block_bytes_(plan.block_bytes) {
  for (const auto& run : plan.runs) {
    if (!is_empty(run)) runs_.push_back(joined(run));
  }
  std::ranges::sort(runs_, {}, &ReadRun::file_offset);
  std::uint64_t reached = 0;
  for (const auto& run : runs_) reaches_.push_back(reached = std::max(reached, end_of(run)));
}

void ReadRows::mark(const ReadRun& run, std::vector<bool>& touched) const {
  const auto mark_between = [&](std::uint64_t begin, std::uint64_t end) {
    for (auto block = begin / block_bytes_; block <= (end - 1) / block_bytes_; ++block) touched[block] = true;
  };
  // Where no block fits between two rows, all from the first to the last are touched.
  if (run.file_stride < run.bytes || run.file_stride - run.bytes < block_bytes_)
    return mark_between(run.file_offset, end_of(run));
  for (std::uint64_t row = 0; row < run.count; ++row) {
    const auto begin = run.file_offset + row * run.file_stride;
    mark_between(begin, begin + run.bytes);
  }
}

std::vector<Extent> ReadRows::extents(std::uint64_t bytes_max) const {
  std::vector<bool> touched((file_bytes_ + block_bytes_ - 1) / block_bytes_);
  for (const auto& run : runs_) mark(run, touched);
  std::vector<Extent> extents;
  for (std::uint64_t block = 0; block < touched.size(); ++block) {
    if (!touched[block]) continue;
    const auto begin = block * block_bytes_, end = std::min(begin + block_bytes_, file_bytes_);
    if (!extents.empty() && extents.back().end == begin && end - extents.back().begin <= bytes_max)
      extents.back().end = end;
    else
      extents.push_back({begin, end});
  }
  return extents;
}

std::vector<const ReadRun*> ReadRows::near(const Extent& extent) const {
  std::vector<const ReadRun*> found;
  auto i =
      std::size_t(std::ranges::lower_bound(runs_, extent.end, {}, &ReadRun::file_offset) - runs_.begin());
  for (; i > 0 && reaches_[i - 1] > extent.begin; --i) {
    if (end_of(runs_[i - 1]) > extent.begin) found.push_back(&runs_[i - 1]);
  }
  return found;
}

std::uint64_t copy_rows(const ReadRun& run, const Extent& extent, const std::byte* from) {
  if (run.file_offset >= extent.end) return 0;
  std::uint64_t first = 0, last = run.count;  // rows [first, last) have bytes in it
  const auto stride = run.file_stride;
  if (stride > 0 && run.file_offset + run.bytes <= extent.begin)
    first = (extent.begin - run.file_offset - run.bytes) / stride + 1;
  if (stride > 0) last = std::min(last, (extent.end - run.file_offset - 1) / stride + 1);
  std::uint64_t copied = 0;
  const auto is_cut = [&](std::uint64_t row) {
    const auto begin = run.file_offset + row * stride;
    return begin < extent.begin || begin + run.bytes > extent.end;
  };
  for (; first < last && is_cut(first); ++first) copied += copy_cut(run, first, extent, from);
  for (; first < last && is_cut(last - 1); --last) copied += copy_cut(run, last - 1, extent, from);
  if (first >= last) return copied;
  copy_whole(run.to + first * run.memory_stride, run.memory_stride,
             from + (run.file_offset + first * stride - extent.begin), stride, last - first, run.bytes);
  return copied + (last - first) * run.bytes;
}

}  // namespace pccl::disk
