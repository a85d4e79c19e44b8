#include "bindings/python_store.hpp"

namespace pccl::bindings {

PythonStore::~PythonStore() {
  const py::gil_scoped_acquire gil;
  store_ = py::object();
}

Result<MasterStore::Records> PythonStore::load() {
  const py::gil_scoped_acquire gil;
  try {
    Records records;
    for (const auto item : store_.attr("load")()) {
      const auto text = std::string(item.cast<py::bytes>());
      records.found.emplace_back(text.begin(), text.end());
    }
    return records;
  } catch (const std::exception& error) {
    return Error{ErrorCode::connect, std::string("the store could not be read: ") + error.what()};
  }
}

MasterStore::Outcome PythonStore::keep(const std::string& run_name, ByteView record) {
  const py::gil_scoped_acquire gil;
  try {
    const py::bytes bytes(reinterpret_cast<const char*>(record.data()), record.size());
    const py::object said = store_.attr("keep")(run_name, bytes);
    if (said.is_none()) return {};
    return {Outcome::Kind::fenced, said.cast<std::string>()};
  } catch (const std::exception& error) {
    return {Outcome::Kind::failed, std::string("the store could not be written: ") + error.what()};
  }
}

void PythonStore::forget(const std::string& run_name) {
  const py::gil_scoped_acquire gil;
  try {
    store_.attr("forget")(run_name);
  } catch (const std::exception&) {  // what is left names a run that nobody is in: the next start forgets it
  }
}

}  // namespace pccl::bindings
