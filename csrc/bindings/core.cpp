// The module: one bind_* per Python class, each in its own file.
#include "base/dtype.hpp"
#include "bindings/common.hpp"

PYBIND11_MODULE(_core, module) {
  using namespace pccl::bindings;
  module.doc() = "The C++ core of pccl_py. Not a public interface: use pccl_py.";
  bind_errors(module);
  bind_timing(module);
  bind_operation(module);
  bind_state(module);
  bind_peer(module);
  bind_master(module);
  bind_disk(module);
  bind_staging(module);
  bind_kernels(module);
  bind_erasure(module);
  bind_shared_memory(module);
  bind_measurements(module);
  py::dict dtypes;
  for (std::uint8_t raw = 1; raw <= pccl::dtypes_count; ++raw) {
    const auto text = pccl::name(static_cast<pccl::DType>(raw));
    dtypes[py::str(text.data(), text.size())] = int(raw);
  }
  module.attr("DTYPES") = dtypes;
}
