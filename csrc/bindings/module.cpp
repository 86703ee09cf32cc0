// vectile._core: configuration, memory and threads here; each family binds itself.
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "base/memory.h"
#include "bindings/array.h"
#include "dispatch/cpu.h"
#include "dispatch/dispatch.h"

namespace vectile {

#define VECTILE_EACH_FAMILY(name) void bind_##name(py::module_&);
#include "each_family.inc"
#undef VECTILE_EACH_FAMILY

namespace {

// True when a signal handler (Ctrl-C) raised: the pool stops and the error reaches the caller.
bool python_interrupted() {
  const PyGILState_STATE gil = PyGILState_Ensure();
  const bool raised = PyErr_CheckSignals() != 0;
  PyGILState_Release(gil);
  return raised;
}

void translate(std::exception_ptr p) {
  try {
    if (p) std::rethrow_exception(p);
  } catch (const TypeError& e) {
    py::set_error(PyExc_TypeError, e.what());
  } catch (const Interrupted&) {
    if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
  }
}

py::dict config() {
  py::dict d;
  d["version"] = VECTILE_VERSION;
  d["isa"] = active_tier();
  d["supported_isas"] = py::cast(supported_tiers());
  d["emulated_isas"] = py::cast(emulated_tiers());
  d["built_isas"] = py::cast(built_tiers());
  d["cpu"] = cpu_name();
  d["threads"] = num_threads();
  d["threads_from"] = num_threads_source();
#if defined(__clang__)
  d["compiler"] = "clang " __clang_version__;
#else
  d["compiler"] = "g++ " __VERSION__;
#endif
  return d;
}

py::dict memory() {
  const MemoryStats s = memory_stats();
  py::dict d;
  d["in_use"] = s.in_use;
  d["peak_in_use"] = s.peak_in_use;
  d["cached"] = s.cached;
  d["limit"] = s.limit;
  d["hits"] = s.hits;
  d["misses"] = s.misses;
  return d;
}

py::object empty(const std::vector<i64>& shape, const py::dtype& dtype) {
  const auto ndim = static_cast<i64>(shape.size());
  if (ndim > kMaxDims) fail("empty", "shape", "ndim", text("at most ", kMaxDims), ndim);
  const DType t = dtype_from_numpy(dtype.ptr());
  if (t == DType::other)
    fail<TypeError>("empty", "dtype", "kind", "a boolean, integer or floating-point type",
                    py::str(dtype).cast<std::string>());
  Shape s;
  for (const i64 d : shape) s.push(d);
  return to_numpy(Array::empty(t, s));
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "Compiled kernels of vectile; use them through vectile.ops.";
  py::register_local_exception_translator(&translate);
  initialise_dispatch();
  set_interrupt_hook(&python_interrupted);
  m.def("config", &config);
  m.def("memory_stats", &memory);
  m.def("empty", &empty, py::arg("shape"), py::arg("dtype"));
  m.def("empty_cache", &empty_cache);
  m.def("get_num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, py::arg("n"));
  m.def("set_isa", &set_tier, py::arg("name"));
#define VECTILE_EACH_FAMILY(name) bind_##name(m);
#include "each_family.inc"
#undef VECTILE_EACH_FAMILY
}

}  // namespace vectile
