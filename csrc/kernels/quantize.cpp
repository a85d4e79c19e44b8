// Looks the codec's kernels up, and brings to float and double what is neither: run by run of whole blocks,
// which stay in the first-level cache.

#include "kernels/quantize.hpp"

#include <algorithm>

#include "kernels/float_modes.hpp"
#include "kernels/quantize_table.hpp"

namespace pccl::kernels {
namespace {

const CodecTable& codecs_of(Level level) {
#if defined(__x86_64__)
  if (level == Level::avx512) return avx512_codecs();
  if (level == Level::avx2) return avx2_codecs();
#else
  (void)level;
#endif
  return scalar_codecs();  // NEON's too: .ci/checks/neon sees that the compiler made vectors of its loops
}

bool valid(const BlockCode& code, DType element) {
  const auto kind = static_cast<std::uint8_t>(code.kind);
  return kind > static_cast<std::uint8_t>(Quantization::none) && kind <= last_of<Quantization> &&
         is_floating(element) && code.block > 0 && code.block <= quantization_block_max &&
         code.block % 32 == 0;
}

std::byte* bytes_at(void* base, std::size_t offset) { return static_cast<std::byte*>(base) + offset; }
const std::byte* bytes_at(const void* base, std::size_t offset) {
  return static_cast<const std::byte*>(base) + offset;
}

using Run = std::byte[quantization_block_max * sizeof(double)];
constexpr std::size_t streamed_bytes = 16u << 10;  // half of the smallest first-level cache

}  // namespace

std::optional<Codec> Codec::at(Level level, const BlockCode& code, DType element) {
  BlockCode used = code;
  if (code.kind == Quantization::bf16) used.block = default_block(code.kind);
  const Set* const set = kernels_at(level);
  if (set == nullptr || !valid(used, element)) return std::nullopt;
  const auto kind = static_cast<std::size_t>(used.kind) - static_cast<std::size_t>(Quantization::int8);
  return Codec(used, element, codecs_of(level).of[element == DType::float64][kind], *set);
}

std::size_t Codec::encoded_bytes(std::size_t count) const {
  const std::size_t whole = count / code_.block, rest = count % code_.block;
  const auto bytes = [&](std::size_t elements) {
    return kernels_->header_bytes + (elements * kernels_->code_bits + 7) / 8;
  };
  return whole * bytes(code_.block) + (rest > 0 ? bytes(rest) : 0);
}

// body(first, count, where the run's encoding begins) -> go on.
template <class Body> bool Codec::for_runs(std::size_t count, const Body& body) const {
  const std::size_t step = quantization_block_max / code_.block * code_.block;
  const std::size_t step_bytes = encoded_bytes(step);
  std::size_t offset = 0;
  for (std::size_t first = 0; first < count; first += step, offset += step_bytes) {
    if (!body(first, std::min(step, count - first), offset)) return false;
  }
  return true;
}

bool Codec::encode_accumulators(const void* in, std::size_t count, const Draw& draw, void* out) const {
  return kernels_->encode[code_.stochastic](
      {bytes_at(out, 0), bytes_at(in, 0), count, static_cast<std::size_t>(code_.block), draw});
}

void Codec::decode_accumulators(const void* in, std::size_t count, void* sums, double weight,
                                bool adds) const {
  kernels_->decode[adds](
      {bytes_at(sums, 0), bytes_at(in, 0), count, static_cast<std::size_t>(code_.block), weight});
}

bool Codec::encode(const void* in, std::size_t count, const Draw& draw, void* out) const {
  const DefaultFloatModes modes;
  if (accumulator_of(element_) == element_) return encode_accumulators(in, count, draw, out);
  return for_runs(count, [&](std::size_t first, std::size_t items, std::size_t offset) {
    alignas(64) Run wide;
    set_->widen_scaled(element_, wide, bytes_at(in, first * size_of(element_)), items, 1.0);
    return encode_accumulators(wide, items, {draw.seed, draw.first_element + first}, bytes_at(out, offset));
  });
}

bool Codec::encode_sum(const void* sums, std::size_t count, double divisor, const Draw& draw, void* out,
                       void* decoded, bool streaming) const {
  const DefaultFloatModes modes;
  const DType accumulator = accumulator_of(element_);
  const bool finite = for_runs(count, [&](std::size_t first, std::size_t items, std::size_t offset) {
    alignas(64) Run quotients;
    const void* from = bytes_at(sums, first * size_of(accumulator));
    if (divisor != 1.0) {
      set_->finish_avg(accumulator, Wire::element, quotients, from, items, divisor);
      from = quotients;
    }
    std::byte* const codes = bytes_at(out, offset);
    if (!encode_accumulators(from, items, {draw.seed, draw.first_element + first}, codes)) return false;
    if (decoded != nullptr && !streaming) decode(codes, items, bytes_at(decoded, first * size_of(element_)));
    return true;
  });
  if (finite && decoded != nullptr && streaming) decode(out, count, decoded, true);
  return finite;
}

void Codec::decode(const void* in, std::size_t count, void* out, bool streaming) const {
  const DefaultFloatModes modes;
  const bool narrows = accumulator_of(element_) != element_;
  if (!narrows && !streaming) return decode_accumulators(in, count, out, 1.0, false);
  if (!narrows) return decode_streaming(in, count, out);
  for_runs(count, [&](std::size_t first, std::size_t items, std::size_t offset) {
    alignas(64) Run wide;
    decode_accumulators(bytes_at(in, offset), items, wide, 1.0, false);
    set_->finish_avg(element_, Wire::accumulator, bytes_at(out, first * size_of(element_)), wide, items, 1.0,
                     streaming);
    return true;
  });
}

// By more than a run: each copy past the caches has a ragged beginning and end.
void Codec::decode_streaming(const void* in, std::size_t count, void* out) const {
  alignas(64) std::byte decoded[streamed_bytes];
  const std::size_t item = size_of(element_), step = streamed_bytes / item / code_.block * code_.block;
  const std::size_t step_bytes = encoded_bytes(step);
  for (std::size_t first = 0; first < count; first += step) {
    const auto items = std::min(step, count - first);
    decode_accumulators(in, items, decoded, 1.0, false);
    set_->copy(bytes_at(out, first * item), decoded, items * item, true);
    in = bytes_at(in, step_bytes);
  }
}

void Codec::decode_set(const void* in, std::size_t count, void* sums, double weight) const {
  const DefaultFloatModes modes;
  decode_accumulators(in, count, sums, weight, false);
}

void Codec::decode_add(const void* in, std::size_t count, void* sums, double weight) const {
  const DefaultFloatModes modes;
  decode_accumulators(in, count, sums, weight, true);
}

}  // namespace pccl::kernels
