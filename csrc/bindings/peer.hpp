// What Python's objects hold. Keeps user objects (tensors) alive while the I/O thread may touch their memory.
#pragma once
#include "bindings/common.hpp"
#include "runtime/peer_runtime.hpp"

namespace pccl::bindings {

// A Python object that may be dropped from any thread, with or without the GIL.
class Keep {
 public:
  Keep() = default;
  explicit Keep(py::object object) : object_(std::make_shared<Holder>(std::move(object))) {}

 private:
  struct Holder {
    explicit Holder(py::object o) : object(std::move(o)) {}
    ~Holder() {
      if (!Py_IsInitialized()) {  // the interpreter is gone, and the object with it
        (void)object.release();
        return;
      }
      py::gil_scoped_acquire gil;
      object = {};
    }
    py::object object;
  };
  std::shared_ptr<Holder> object_;
};

struct PeerObject {
  std::shared_ptr<PeerRuntime> runtime;
};

struct OperationObject {
  std::shared_ptr<PeerRuntime> runtime;
  std::shared_ptr<OperationHandle> handle;
  Keep keep;
  ~OperationObject();
};

struct StateObject {
  std::shared_ptr<PeerRuntime> runtime;
  std::shared_ptr<StateHandle> handle;
  Keep keep;
  StateObject(std::shared_ptr<PeerRuntime> r, std::shared_ptr<StateHandle> h)
      : runtime(std::move(r)), handle(std::move(h)) {}
  ~StateObject();
};

void check_not_forked(const PeerObject& self);
void bind_coded(py::class_<PeerObject>& peer);

}  // namespace pccl::bindings
