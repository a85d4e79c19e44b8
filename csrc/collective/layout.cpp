#include "collective/layout.hpp"

#include <algorithm>

namespace pccl {

namespace {
// Segments begin at multiples of a cache line of the byte sequence, so that vector code seldom starts in the
// middle.
constexpr std::uint64_t align = 64;

std::uint64_t segment_start(std::uint64_t total, std::uint32_t segment, std::uint32_t segments) {
  if (segment >= segments) return total;
  const auto exact = std::uint64_t(static_cast<unsigned __int128>(total) * segment / segments);
  return total < align * segments ? exact : exact / align * align;
}
}  // namespace

Layout::Layout(const std::vector<TensorShape>& tensors, std::uint32_t segments, std::uint32_t chunk_bytes,
               std::uint32_t weights)
    : tensors_(std::uint32_t(tensors.size())) {
  for (const auto& tensor : tensors) bytes_ += tensor.count * size_of(tensor.dtype);
  segment_begin_.push_back(0);
  std::uint32_t segment = 0;
  std::uint64_t at = 0;  // byte position in the whole sequence
  const auto close_segments = [&](std::uint64_t position) {
    while (segment + 1 < segments && position >= segment_start(bytes_, segment + 1, segments)) {
      segment_begin_.push_back(chunks());
      ++segment;
    }
  };
  for (std::uint32_t t = 0; t < tensors_; ++t) {
    const auto size = size_of(tensors[t].dtype);
    for (std::uint64_t offset = 0; offset < tensors[t].count;) {
      close_segments(at);
      const auto room = segment_start(bytes_, segment + 1, segments) - at;  // > 0 but for the last rounding
      const auto elements = std::max<std::uint64_t>(std::min<std::uint64_t>(room, chunk_bytes) / size, 1);
      const auto count = std::min(elements, tensors[t].count - offset);
      chunks_.push_back({t, std::uint32_t(count), offset, tensors[t].dtype});
      offset += count;
      at += count * size;
    }
  }
  while (segment_begin_.size() <= segments) segment_begin_.push_back(chunks());
  for (std::uint32_t i = 0; i < weights; ++i) {
    chunks_.push_back({tensors_, 1, i, DType::float64});
    segment_begin_.push_back(chunks());
  }
}

Layout Layout::of_blocks(const std::vector<TensorShape>& tensors, std::uint32_t blocks,
                         std::uint32_t chunk_bytes) {
  Layout layout;
  layout.tensors_ = std::uint32_t(tensors.size());
  layout.segment_begin_.push_back(0);
  for (std::uint32_t block = 0; block < blocks; ++block) {
    for (std::uint32_t t = 0; t < layout.tensors_; ++t) {
      const auto& tensor = tensors[t];
      const auto most = std::max<std::uint64_t>(chunk_bytes / size_of(tensor.dtype), 1);
      for (std::uint64_t at = 0; at < tensor.count;) {
        const auto count = std::min(most, tensor.count - at);
        layout.chunks_.push_back({t, std::uint32_t(count), block * tensor.count + at, tensor.dtype});
        at += count;
      }
      layout.bytes_ += tensor.count * size_of(tensor.dtype);
    }
    layout.segment_begin_.push_back(layout.chunks());
  }
  return layout;
}

std::uint32_t choose_chunk_bytes(std::uint64_t operation_bytes, std::uint32_t world, std::uint32_t stripes,
                                 std::uint32_t hint) {
  // The hint comes with the view: whatever it says, the bounds hold.
  const auto wanted =
      std::max<std::uint64_t>(hint != 0 ? hint : limits::chunk_bytes_default, limits::chunk_bytes_min);
  const auto share = operation_bytes / (std::uint64_t{4} * std::max(world, 1u) * std::max(stripes, 1u));
  const auto size = std::clamp<std::uint64_t>(share, limits::chunk_bytes_min, wanted);
  // Accumulators may be twice as large as elements, and a frame holds either.
  return std::uint32_t(std::min<std::uint64_t>((size + 63) / 64 * 64, limits::chunk_bytes_max / 2));
}

}  // namespace pccl
