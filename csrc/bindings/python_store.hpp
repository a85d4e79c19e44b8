// A master's store that is written in Python: `load() -> list[bytes]`, `keep(run_name, record)` returns None,
// or a text: why another master serves now, `forget(run_name)`. Called on the master's thread, with the GIL.
// What it raises is logged, and the run goes on.
#pragma once
#include "bindings/common.hpp"
#include "runtime/master_store.hpp"

namespace pccl::bindings {

class PythonStore final : public MasterStore {
 public:
  explicit PythonStore(py::object store) : store_(std::move(store)) {}
  ~PythonStore() override;
  PythonStore(const PythonStore&) = delete;
  PythonStore& operator=(const PythonStore&) = delete;

  Result<Records> load() override;
  Outcome keep(const std::string& run_name, ByteView record) override;
  void forget(const std::string& run_name) override;

 private:
  py::object store_;
};

}  // namespace pccl::bindings
