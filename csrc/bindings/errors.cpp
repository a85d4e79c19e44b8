#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "bindings/common.hpp"

namespace pccl::bindings {

namespace {

// Leaked on purpose: they must not be destroyed after the interpreter.
py::object& error_factory() {
  static auto* object = new py::object(py::none());
  return *object;
}
py::object& log_function() {
  static auto* object = new py::object(py::none());
  return *object;
}

}  // namespace

void raise(const Error& error) {
  if (error_factory().is_none()) throw std::runtime_error(error.text);
  const py::object exception = error_factory()(int(error.code), error.text);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw py::error_already_set();
}

namespace {

// Lines go to a thread of their own: the I/O thread must never wait for the GIL, and the main thread may be
// busy.
class LogThread {
 public:
  // Of this process: a forked child has neither the thread nor, perhaps, a lock that can be taken.
  static LogThread& here() {
    static std::atomic<LogThread*> current{new LogThread};  // it outlives the interpreter
    auto* found = current.load();
    if (found->process_ == getpid()) return *found;
    auto* const own = new LogThread;
    if (current.compare_exchange_strong(found, own)) return *own;
    delete own;
    return *found;
  }
  void put(const std::string& line) {
    const std::lock_guard lock(mutex_);
    if (lines_.size() < lines_max) lines_.push_back(line);
    try {
      if (!started_) std::thread([this] { run(); }).detach();
      started_ = true;
    } catch (const std::system_error&) {  // no thread to be had: with a later line, perhaps
    }
    put_.notify_one();
  }

 private:
  static constexpr std::size_t lines_max = 1000;  // a reader that is stuck must not eat the memory
  void run() {
    for (;;) {
      std::string line;
      {
        std::unique_lock lock(mutex_);
        put_.wait(lock, [&] { return !lines_.empty(); });
        line = std::move(lines_.front());
        lines_.pop_front();
      }
      if (!Py_IsInitialized() || interpreter_ends_elsewhere()) return;
      py::gil_scoped_acquire gil;
      if (log_function().is_none()) continue;
      try {
        log_function()(line);
      } catch (py::error_already_set& error) {
        error.discard_as_unraisable("pccl_py log function");
      }
    }
  }
  std::mutex mutex_;
  std::condition_variable put_;
  std::deque<std::string> lines_;
  const pid_t process_ = getpid();
  bool started_ = false;
};

std::atomic<bool> ending{false};
std::thread::id ending_thread;

}  // namespace

bool interpreter_ends_elsewhere() { return ending && std::this_thread::get_id() != ending_thread; }

void sleep_for_ever() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

std::function<void(const std::string&)> logger() {
  return [](const std::string& line) { LogThread::here().put(line); };
}

void bind_errors(py::module_& module) {
  py::module_::import("atexit").attr("register")(py::cpp_function([] {
    ending_thread = std::this_thread::get_id();
    ending = true;
  }));
  module.def(
      "on_error", [](py::object make) { error_factory() = std::move(make); }, py::arg("make"),
      "Every failure raises make(code, text).");
  module.def(
      "on_log", [](py::object log) { log_function() = std::move(log); }, py::arg("log"),
      "Lines for people (who is missing, view changes) go to log(line), on a thread of their own; None: "
      "nowhere.");
}

void bind_timing(py::module_& module) {
  py::class_<Timing> timing(module, "Timing");
  timing.def(py::init<>());
  const auto milliseconds = [&](const char* name, Duration Timing::* field) {
    timing.def_property(
        name, [field](const Timing& t) { return t.*field / millisecond; },
        [field](Timing& t, std::int64_t ms) { t.*field = ms * millisecond; });
  };
  milliseconds("heartbeat_ms", &Timing::heartbeat);
  milliseconds("reconnect_ms", &Timing::reconnect);
  milliseconds("settle_ms", &Timing::settle);
  milliseconds("redial_ms", &Timing::redial);
  milliseconds("redial_every_ms", &Timing::redial_every);
  milliseconds("prove_ms", &Timing::prove);
  milliseconds("waiting_notice_ms", &Timing::waiting_notice);
  milliseconds("verdict_ms", &Timing::verdict);
  milliseconds("master_lost_ms", &Timing::master_lost);
  milliseconds("grace_ms", &Timing::grace);
  milliseconds("deadline_floor_ms", &Timing::deadline_floor);
  milliseconds("straggler_ms", &Timing::straggler);
  timing.def_readwrite("heartbeats_missed_max", &Timing::heartbeats_missed_max);
  timing.def_readwrite("deadline_k", &Timing::deadline_k);
}

}  // namespace pccl::bindings
