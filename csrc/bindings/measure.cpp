// Reduction kernels and the quantization codec on buffers, on any instruction set, again and again: for
// measurements. Buffers hold elements of `dtype`.
#include "bindings/common.hpp"
#include "kernels/quantize.hpp"
#include "kernels/reduce.hpp"

namespace pccl::bindings {

namespace {

using kernels::Codec;
using kernels::Level;
using kernels::Wire;

constexpr std::pair<const char*, Level> levels[] = {
    {"scalar", Level::scalar}, {"avx2", Level::avx2}, {"avx512", Level::avx512}, {"neon", Level::neon}};

Level level_of(const std::string& name) {
  for (const auto& [text, level] : levels)
    if (name == text && kernels::kernels_at(level) != nullptr) return level;
  throw py::value_error("this CPU has no kernels for " + name);
}

DType dtype_of(int raw) {
  if (!valid(static_cast<DType>(raw))) throw py::value_error("no such dtype");
  return static_cast<DType>(raw);
}

struct Memory {
  void* data;
  std::size_t bytes;
};

Memory memory_of(const py::buffer& buffer, bool writable) {
  const auto info = buffer.request(writable);
  if (PyBuffer_IsContiguous(info.view(), 'C') == 0) throw py::value_error("not contiguous");
  return {info.ptr, static_cast<std::size_t>(info.view()->len)};
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const auto& [text, level] : levels)
    if (kernels::kernels_at(level) != nullptr) names.emplace_back(text);
  return names;
}

void reduce(const std::string& level, int dtype, int op, const py::buffer& out, const py::buffer& incoming,
            const py::buffer& own, bool streaming, int times) {
  const auto& set = *kernels::kernels_at(level_of(level));
  const auto element = dtype_of(dtype);
  if (!valid(static_cast<ReduceOp>(op))) throw py::value_error("no such operation");
  const auto to = memory_of(out, true), from = memory_of(incoming, false), mine = memory_of(own, false);
  if (to.bytes != from.bytes || to.bytes != mine.bytes) throw py::value_error("sizes do not match");
  const kernels::ReduceArgs args{to.data, from.data, mine.data, to.bytes / size_of(element), streaming, 1.0};
  without_gil([&] {
    for (int i = 0; i < times; ++i)
      set.combine(element, static_cast<ReduceOp>(op), Wire::element, Wire::element, args);
  });
}

Codec codec_of(const std::string& level, int kind, std::uint32_t block, bool stochastic, int dtype) {
  const kernels::BlockCode code{static_cast<Quantization>(kind), block, stochastic};
  const auto codec = Codec::at(level_of(level), code, dtype_of(dtype));
  if (!codec) throw py::value_error("no such code");
  return *codec;
}

void encode(const std::string& level, int kind, std::uint32_t block, bool stochastic, int dtype,
            const py::buffer& data, const py::buffer& out, int times) {
  const auto codec = codec_of(level, kind, block, stochastic, dtype);
  const auto from = memory_of(data, false), to = memory_of(out, true);
  const auto count = from.bytes / size_of(static_cast<DType>(dtype));
  if (to.bytes != codec.encoded_bytes(count)) throw py::value_error("sizes do not match");
  bool finite = true;
  without_gil([&] {
    for (int i = 0; i < times; ++i) finite = codec.encode(from.data, count, {}, to.data) && finite;
  });
  if (!finite) throw py::value_error("a value is not finite");
}

void decode(const std::string& level, int kind, std::uint32_t block, int dtype, const py::buffer& data,
            const py::buffer& out, bool add, int times) {
  const auto codec = codec_of(level, kind, block, false, dtype);
  const auto from = memory_of(data, false), to = memory_of(out, true);
  const auto element = dtype_of(dtype);
  const auto count = to.bytes / size_of(add ? accumulator_of(element) : element);
  if (from.bytes != codec.encoded_bytes(count)) throw py::value_error("sizes do not match");
  without_gil([&] {
    for (int i = 0; i < times; ++i)
      if (add)
        codec.decode_add(from.data, count, to.data);
      else
        codec.decode(from.data, count, to.data);
  });
}

}  // namespace

void bind_measurements(py::module_& module) {
  using py::arg;
  module.def("instruction_sets", instruction_sets, "Those with kernels that this CPU runs, slowest first.");
  module.def("reduce", reduce, arg("level"), arg("dtype"), arg("op"), arg("out"), arg("incoming"), arg("own"),
             arg("streaming"), arg("times"), "out = incoming (op) own.");
  module.def("encode_into", encode, arg("level"), arg("kind"), arg("block"), arg("stochastic"), arg("dtype"),
             arg("data"), arg("out"), arg("times"), "ValueError where an element is not finite.");
  module.def("decode_into", decode, arg("level"), arg("kind"), arg("block"), arg("dtype"), arg("data"),
             arg("out"), arg("add"), arg("times"), "`add`: onto accumulators.");
}

}  // namespace pccl::bindings
