#pragma once
// Element types and reduce operations, as numbered on the wire. Pure facts; the arithmetic is in kernels/.

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pccl {

// The numbers travel in messages: never renumber, only append. 0 is "none" and never valid.
enum class DType : std::uint8_t {
  float32 = 1,
  float64,
  float16,
  bfloat16,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
};

enum class ReduceOp : std::uint8_t { sum = 1, avg, prod, min, max };

inline constexpr std::size_t dtypes_count = 12;
inline constexpr std::size_t reduce_ops_count = 5;

// For bytes that came from a peer: cast only after these said yes.
constexpr bool valid_dtype(std::uint8_t raw) { return raw >= 1 && raw <= dtypes_count; }
constexpr bool valid_reduce_op(std::uint8_t raw) { return raw >= 1 && raw <= reduce_ops_count; }
constexpr bool valid(DType dtype) { return valid_dtype(static_cast<std::uint8_t>(dtype)); }
constexpr bool valid(ReduceOp op) { return valid_reduce_op(static_cast<std::uint8_t>(op)); }

// Bytes of one element; 0 for a value that is not a DType.
constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::int8:
    case DType::uint8:
      return 1;
    case DType::float16:
    case DType::bfloat16:
    case DType::int16:
    case DType::uint16:
      return 2;
    case DType::float32:
    case DType::int32:
    case DType::uint32:
      return 4;
    case DType::float64:
    case DType::int64:
    case DType::uint64:
      return 8;
  }
  return 0;
}

constexpr bool is_floating(DType dtype) { return dtype >= DType::float32 && dtype <= DType::bfloat16; }

// The type in which elements are reduced: partial sums of 16-bit floats stay in it until they are rounded,
// once.
constexpr DType accumulator_of(DType dtype) {
  return dtype == DType::float16 || dtype == DType::bfloat16 ? DType::float32 : dtype;
}

constexpr std::string_view name(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::float16:
      return "float16";
    case DType::bfloat16:
      return "bfloat16";
    case DType::int8:
      return "int8";
    case DType::int16:
      return "int16";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
    case DType::uint8:
      return "uint8";
    case DType::uint16:
      return "uint16";
    case DType::uint32:
      return "uint32";
    case DType::uint64:
      return "uint64";
  }
  return "invalid dtype";
}

constexpr std::string_view name(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return "sum";
    case ReduceOp::avg:
      return "avg";
    case ReduceOp::prod:
      return "prod";
    case ReduceOp::min:
      return "min";
    case ReduceOp::max:
      return "max";
  }
  return "invalid reduce op";
}

}  // namespace pccl
