// The quantization codec and GF(2^8) on buffers, for tests and measurements.
#include "bindings/common.hpp"
#include "kernels/galois.hpp"
#include "kernels/quantize.hpp"

namespace pccl::bindings {

namespace {

using kernels::Codec;

Codec codec_of(int kind, std::uint32_t block, bool stochastic, int dtype) {
  const kernels::BlockCode code{static_cast<Quantization>(kind), block, stochastic};
  const auto codec = Codec::of(code, static_cast<DType>(dtype));
  if (!codec) throw py::value_error("no such code");
  return *codec;
}

py::buffer_info contiguous(const py::buffer& buffer, bool writable) {
  auto info = buffer.request(writable);
  if (PyBuffer_IsContiguous(info.view(), 'C') == 0) throw py::value_error("not contiguous");
  return info;
}

std::size_t bytes_of(const py::buffer_info& info) { return static_cast<std::size_t>(info.view()->len); }

py::object encode(int kind, std::uint32_t block, bool stochastic, int dtype, const py::buffer& data,
                  std::uint64_t seed, std::uint64_t first_element) {
  const Codec codec = codec_of(kind, block, stochastic, dtype);
  const auto in = contiguous(data, false);
  const std::size_t count = bytes_of(in) / size_of(static_cast<DType>(dtype));
  std::string out(codec.encoded_bytes(count), '\0');
  const bool finite =
      without_gil([&] { return codec.encode(in.ptr, count, {seed, first_element}, out.data()); });
  return finite ? py::object(py::bytes(out)) : py::none();
}

void decode(int kind, std::uint32_t block, int dtype, const py::buffer& data, const py::buffer& out) {
  const Codec codec = codec_of(kind, block, false, dtype);
  const auto from = contiguous(data, false), to = contiguous(out, true);
  const std::size_t count = bytes_of(to) / size_of(static_cast<DType>(dtype));
  if (bytes_of(from) != codec.encoded_bytes(count)) throw py::value_error("sizes do not match");
  without_gil([&] { codec.decode(from.ptr, count, to.ptr); });
}

void multiply_add(const py::buffer& sums, const py::buffer& data, std::uint8_t factor) {
  const auto from = contiguous(data, false), to = contiguous(sums, true);
  if (bytes_of(from) != bytes_of(to)) throw py::value_error("sizes do not match");
  const auto* first = static_cast<const char*>(from.ptr);
  const auto* second = static_cast<const char*>(to.ptr);
  const bool apart = first + bytes_of(from) <= second || second + bytes_of(to) <= first;
  if (!apart && first != second) throw py::value_error("the buffers overlap");
  without_gil([&] { kernels::best_galois().combine({to.ptr, to.ptr, from.ptr, bytes_of(to), 1, factor}); });
}

}  // namespace

void bind_kernels(py::module_& module) {
  module.def("quantize_encode", encode, py::arg("kind"), py::arg("block"), py::arg("stochastic"),
             py::arg("dtype"), py::arg("data"), py::arg("seed") = 0, py::arg("first_element") = 0,
             "The bytes of `data`, elements of `dtype`, block by block; None where one is not finite.");
  module.def("quantize_decode", decode, py::arg("kind"), py::arg("block"), py::arg("dtype"), py::arg("data"),
             py::arg("out"), "Decodes into `out`, elements of `dtype`.");
  module.def("galois_multiply_add", multiply_add, py::arg("sums"), py::arg("data"), py::arg("factor"),
             "sums ^= factor * data in GF(2^8) modulo 0x11d, byte by byte, in place.");
  py::dict kinds;
  for (std::uint8_t raw = 1; raw <= last_of<Quantization>; ++raw) {
    const auto text = name(static_cast<Quantization>(raw));
    kinds[py::str(text.data(), text.size())] = int(raw);
  }
  module.attr("QUANTIZATIONS") = kinds;
}

}  // namespace pccl::bindings
