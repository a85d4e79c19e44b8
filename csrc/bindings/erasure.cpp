// Erasure codes on memory by address: pccl_py/erasure checks what lies there. Sizes in bytes, of one block.
#include "bindings/common.hpp"
#include "erasure/placement.hpp"
#include "erasure/ranges.hpp"
#include "erasure/reed_solomon.hpp"
#include "kernels/crc32.hpp"

namespace pccl::bindings {

namespace {

using erasure::Code;
using erasure::ReedSolomon;
using erasure::Stripes;
using kernels::GaloisLevel;
using Addresses = std::vector<std::uintptr_t>;
using Numbers = std::vector<std::uint32_t>;

constexpr std::pair<const char*, GaloisLevel> levels[] = {
    {"scalar", GaloisLevel::scalar},       {"neon", GaloisLevel::neon},
    {"avx2", GaloisLevel::avx2},           {"avx512", GaloisLevel::avx512},
    {"avx2_gfni", GaloisLevel::avx2_gfni}, {"avx512_gfni", GaloisLevel::avx512_gfni}};

const kernels::GaloisSet& set_of(const std::string& name) {
  if (name.empty()) return kernels::best_galois();
  for (const auto& [text, level] : levels)
    if (name == text && kernels::galois_at(level) != nullptr) return *kernels::galois_at(level);
  throw py::value_error("this CPU has no kernels for " + name);
}

std::vector<std::string> galois_levels() {
  std::vector<std::string> names;
  for (const auto& [text, level] : levels)
    if (kernels::galois_at(level) != nullptr) names.emplace_back(text);
  return names;
}

template <class Byte> std::vector<Byte*> pointers(const Addresses& addresses, std::size_t expected) {
  if (addresses.size() != expected)
    throw py::value_error(std::to_string(addresses.size()) + " blocks, not " + std::to_string(expected));
  std::vector<Byte*> found;
  for (const std::uintptr_t address : addresses) found.push_back(reinterpret_cast<Byte*>(address));
  return found;
}
const auto read = pointers<const std::byte>;
const auto written = pointers<std::byte>;

ReedSolomon make(std::uint32_t k, std::uint32_t m, const std::string& level) {
  if (k == 0 || m == 0 || k > erasure::blocks_max || m > erasure::blocks_max - k)
    throw py::value_error("no such code");
  return ReedSolomon(Code{k, m}, set_of(level));
}

void encode(const ReedSolomon& code, const Addresses& data, const Addresses& parity, std::size_t bytes,
            std::size_t threads) {
  const auto from = read(data, code.code().data);
  const auto to = written(parity, code.code().parity);
  without_gil([&] { code.encode(from, to, bytes, threads); });
}

Numbers encode_copying(const ReedSolomon& code, const Addresses& data, const Addresses& copies,
                       const Addresses& parity, std::size_t bytes, std::size_t threads) {
  const auto from = read(data, code.code().data);
  const auto to = written(copies, code.code().data), sums = written(parity, code.code().parity);
  return without_gil([&] { return code.encode_copying(from, to, sums, bytes, threads); });
}

void update(const ReedSolomon& code, const Addresses& parity, std::uint32_t slot, std::uintptr_t old,
            std::uintptr_t now, std::size_t bytes, std::size_t threads) {
  const auto to = written(parity, code.code().parity);
  if (slot >= code.code().data) throw py::value_error("no such block");
  const auto* before = reinterpret_cast<const std::byte*>(old);
  const auto* after = reinterpret_cast<const std::byte*>(now);
  without_gil([&] { code.update(to, slot, before, after, bytes, threads); });
}

void check_numbers(const ReedSolomon& code, const Numbers& numbers) {
  for (std::size_t i = 0; i < numbers.size(); ++i)
    if (numbers[i] >= code.code().blocks() || (i > 0 && numbers[i] <= numbers[i - 1]))
      throw py::value_error("block numbers are sorted and different");
}

bool decode(const ReedSolomon& code, const Addresses& blocks, const Numbers& present, const Numbers& lost,
            std::size_t bytes, std::size_t threads) {
  check_numbers(code, present);
  check_numbers(code, lost);
  const auto memory = written(blocks, code.code().blocks());
  return without_gil([&] { return code.decode(memory, present, lost, bytes, threads); });
}

py::dict decode_row(const ReedSolomon& code, const Numbers& present, std::uint32_t lost) {
  check_numbers(code, present);
  check_numbers(code, {lost});
  const auto recipe = erasure::recipe(code.code(), present, std::array{lost});
  py::dict factors;
  for (std::size_t i = 0; i < recipe.read.size(); ++i)
    factors[py::int_(recipe.read[i])] = int(recipe.factors.at(0, i));
  return factors;
}

py::tuple verify(const ReedSolomon& code, const Addresses& blocks, std::size_t bytes, std::size_t threads) {
  const auto memory = read(blocks, code.code().blocks());
  const auto verdict = without_gil([&] { return code.verify(memory, bytes, threads); });
  return py::make_tuple(verdict.right, verdict.wrong);
}

// Any matrix, row by row, on any instruction set: for tests and measurements.
void galois_encode(const Addresses& targets, const Addresses& sources, const py::bytes& factors,
                   std::size_t bytes, const std::string& level, bool streaming, bool adds) {
  const std::string matrix = factors;
  if (matrix.size() != targets.size() * sources.size()) throw py::value_error("sizes do not match");
  const auto to = written(targets, targets.size());
  const auto from = read(sources, sources.size());
  const auto& set = set_of(level);
  const auto* first = reinterpret_cast<const std::uint8_t*>(matrix.data());
  without_gil([&] { set.encode({to, from, first, bytes, streaming, adds}); });
}

std::uint32_t crc32c(std::uintptr_t address, std::size_t bytes, std::uint32_t before) {
  return without_gil(
      [&] { return kernels::best_crc32c().of(reinterpret_cast<const void*>(address), bytes, before); });
}

std::uint32_t copy_crc32c(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, std::size_t threads) {
  return without_gil([&] {
    return erasure::copy_summed(reinterpret_cast<std::byte*>(to), reinterpret_cast<const std::byte*>(from),
                                bytes, threads);
  });
}

Stripes stripes(std::uint32_t n, std::uint32_t m) {
  if (m == 0 || m >= n || n > erasure::blocks_max) throw py::value_error("no such group");
  return Stripes(n, m);
}

void bind_placement(py::module_& module) {
  module.def(
      "code_groups",
      [](const Numbers& domains, std::uint32_t size) { return erasure::code_groups(domains, size); },
      py::arg("domains"), py::arg("size"), "Groups of keepers; domains[i] is that of keeper i.");
  py::class_<Stripes>(module, "Stripes")
      .def(py::init(&stripes), py::arg("n"), py::arg("m"))
      .def("slot_of", &Stripes::slot_of, py::arg("stripe"), py::arg("block"))
      .def("block_of", &Stripes::block_of, py::arg("stripe"), py::arg("slot"))
      .def("stripe_of", &Stripes::stripe_of, py::arg("slot"), py::arg("block"));
}

}  // namespace

void bind_erasure(py::module_& module) {
  py::class_<ReedSolomon>(module, "ReedSolomon")
      .def(py::init(&make), py::arg("k"), py::arg("m"), py::arg("level") = "")
      .def("encode", encode, py::arg("data"), py::arg("parity"), py::arg("bytes"), py::arg("threads"))
      .def("encode_copying", encode_copying, py::arg("data"), py::arg("copies"), py::arg("parity"),
           py::arg("bytes"), py::arg("threads"), "CRC-32C of each block.")
      .def("update", update, py::arg("parity"), py::arg("slot"), py::arg("old"), py::arg("now"),
           py::arg("bytes"), py::arg("threads"))
      .def("decode", decode, py::arg("blocks"), py::arg("present"), py::arg("lost"), py::arg("bytes"),
           py::arg("threads"), "False: fewer than k are present.")
      .def("decode_row", decode_row, py::arg("present"), py::arg("lost"),
           "Factors by block, of as many blocks as it takes; empty: too few are present.")
      .def("verify", verify, py::arg("blocks"), py::arg("bytes"), py::arg("threads"),
           "Whether all is right; the wrong blocks, or None where that cannot be told.");
  module.def("rs_coefficient", &erasure::coefficient, py::arg("row"), py::arg("slot"));
  module.def("galois_levels", galois_levels, "Instruction sets of this CPU, the fastest last.");
  module.def("galois_encode", galois_encode, py::arg("targets"), py::arg("sources"), py::arg("factors"),
             py::arg("bytes"), py::arg("level") = "", py::arg("streaming") = false, py::arg("adds") = false,
             "targets = factors * sources over GF(2^8); addresses, and a matrix row by row.");
  module.def("crc32c", crc32c, py::arg("address"), py::arg("bytes"), py::arg("before") = 0);
  module.def("copy_crc32c", copy_crc32c, py::arg("to"), py::arg("from_"), py::arg("bytes"),
             py::arg("threads"), "CRC-32C of what was copied.");
  module.def("crc32c_combine", &kernels::crc32c_combine, py::arg("first"), py::arg("second"),
             py::arg("bytes_second"));
  bind_placement(module);
}

}  // namespace pccl::bindings
