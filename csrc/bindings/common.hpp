// Shared by the binding files: errors become Python exceptions, waits release the GIL and see Ctrl-C.
#pragma once
#include <cxxabi.h>
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "protocol/timing.hpp"

namespace pccl::bindings {

namespace py = pybind11;

// Raises make(code, text) of on_error(), or RuntimeError before it was set.
[[noreturn]] void raise(const Error& error);
// A log function for library threads; safe also while the interpreter ends.
std::function<void(const std::string&)> logger();

// True on every thread but the one that ends the interpreter, once that has begun.
bool interpreter_ends_elsewhere();
// Such a thread must not ask for the GIL again: the interpreter would unwind it right through our frames,
// which ends the process. It sleeps until the process is gone, as later versions of Python do themselves.
[[noreturn]] void sleep_for_ever();

// The end may also begin while this thread waits for its turn: then it is caught on its way out.
inline void take_gil_again(PyThreadState* state) {
  if (interpreter_ends_elsewhere()) sleep_for_ever();
  try {
    PyEval_RestoreThread(state);
  } catch (abi::__forced_unwind&) {
    sleep_for_ever();
  }
}

// Runs f without the GIL, which is there again also where f throws: memory may be over.
template <class F> auto without_gil(F f) {
  struct Released {
    PyThreadState* state = PyEval_SaveThread();
    ~Released() { take_gil_again(state); }
  } released;
  return f();
}

// Words of peers, and words that were cut off anywhere: what is no UTF-8 is replaced.
inline py::str readable(const std::string& text) {
  return py::str(py::bytes(text).attr("decode")("utf-8", "replace"));
}

inline constexpr Duration signal_check = 100 * millisecond;

inline Duration duration_of(double seconds) {
  return seconds < 0 || seconds > 1e9 ? never : Duration(seconds * 1e9);
}

// `step(time)` waits at most that long without the GIL and says whether it is over. False: the time is over.
template <class Step> bool wait_with_signals(double seconds, Step step) {
  const auto limit = duration_of(seconds);
  const auto until = limit == never ? never : monotonic_now() + limit;
  for (;;) {
    const auto left = until == never ? signal_check : std::min(signal_check, until - monotonic_now());
    if (without_gil([&] { return bool(step(std::max<Duration>(left, 0))); })) return true;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (until != never && monotonic_now() >= until) return false;
  }
}

void bind_errors(py::module_& module);
void bind_timing(py::module_& module);
void bind_master(py::module_& module);
void bind_peer(py::module_& module);
void bind_operation(py::module_& module);
void bind_state(py::module_& module);
void bind_disk(py::module_& module);
void bind_kernels(py::module_& module);
void bind_erasure(py::module_& module);
void bind_shared_memory(py::module_& module);
void bind_measurements(py::module_& module);
void bind_staging(py::module_& module);
void bind_memory_capture(py::module_& module);

}  // namespace pccl::bindings
