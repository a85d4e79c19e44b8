// Memory of tensors that peers of the same host can read in place.
#include "runtime/shared_memory.hpp"

#include <cstdlib>
#include <cstring>

#include "bindings/common.hpp"

namespace pccl::bindings {

namespace {

// Where there is no shared memory left it is private: slower, and otherwise the same.
class TensorMemory {
 public:
  explicit TensorMemory(std::size_t bytes) : bytes_(bytes), data_(SharedMemory::instance().allocate(bytes)) {
    if (data_ != nullptr) return;
    shared_ = false;
    data_ = static_cast<std::uint8_t*>(std::calloc(std::max<std::size_t>(bytes, 1), 1));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~TensorMemory() {
    if (shared_)
      SharedMemory::instance().free(data_);
    else
      std::free(data_);
  }
  TensorMemory(const TensorMemory&) = delete;

  py::buffer_info buffer() { return {data_, py::ssize_t(bytes_), false}; }
  bool shared() const { return shared_; }

 private:
  std::size_t bytes_;
  bool shared_ = true;
  std::uint8_t* data_;
};

}  // namespace

void bind_shared_memory(py::module_& module) {
  py::class_<TensorMemory>(module, "TensorMemory", py::buffer_protocol())
      .def(py::init<std::size_t>(), py::arg("bytes"))
      .def_buffer(&TensorMemory::buffer)
      .def_property_readonly("shared", &TensorMemory::shared);
  module.def("shared_bytes", [] { return SharedMemory::instance().bytes(); });
}

}  // namespace pccl::bindings
