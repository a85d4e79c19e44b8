// The module: one bind_* per Python class, each in its own file.
#include "base/dtype.hpp"
#include "bindings/common.hpp"
#include "net/tls_library.hpp"

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
  // For runs with a secret: a path, before the first of them. And what the one that is used calls itself.
  module.def("name_libssl", &pccl::net::name_tls_library, py::arg("path"));
  module.def("libssl_name", &pccl::net::tls_library_name);
  py::dict dtypes;
  for (std::uint8_t raw = 1; raw <= pccl::dtypes_count; ++raw) {
    const auto text = pccl::name(static_cast<pccl::DType>(raw));
    dtypes[py::str(text.data(), text.size())] = int(raw);
  }
  module.attr("DTYPES") = dtypes;
}
