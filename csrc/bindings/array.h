// NumPy arrays <-> TensorView, without a copy; the GIL around kernels. The only pybind11 glue.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <utility>

#include "ops/common.h"

namespace vectile {

namespace py = pybind11;

// The dtype of a NumPy descriptor; `other` for what no kernel takes.
DType dtype_from_numpy(PyObject* descr);
py::dtype dtype_to_numpy(DType dtype);

// An argument is an array on a GPU: the whole call belongs there.
struct OnDevice {};

// Throws OnDevice if `value` is an array on a GPU.
void expect_host(py::handle value);

// The op of that name for device arrays (python/vectile/device.py).
py::object call_on_device(const std::string& name, const py::tuple& arguments);

// m.def for an op: a call with an array on a GPU goes to the device's op of the same name.
template <class F, class R, class... A, class... Extra>
void define_as(py::module_& m, const char* name, F f, R (F::*)(A...) const, const Extra&... extra) {
  m.def(
      name,
      [f = std::move(f), name = std::string(name)](A... a) -> R {
        try {
          return f(a...);
        } catch (const OnDevice&) {
          const py::object result = call_on_device(name, py::make_tuple(a...));
          if constexpr (!std::is_void_v<R>) return py::cast<R>(result);
        }
      },
      extra...);
}
template <class F, class... Extra>
void define(py::module_& m, const char* name, F f, const Extra&... extra) {
  define_as(m, name, std::move(f), &F::operator(), extra...);
}

// One array argument. Anything that is not an ndarray goes through numpy.asarray; byte-swapped,
// unaligned or oddly strided memory is copied once.
class Input {
 public:
  Input(py::handle value, const char* op, const char* argument);
  const TensorView& operator*() const { return view_; }
  const TensorView* operator->() const { return &view_; }

 private:
  TensorView view_;
  py::object owner_;
};

// An argument that may be None.
class OptionalInput {
 public:
  OptionalInput() = default;
  OptionalInput(py::handle value, const char* op, const char* argument) {
    if (!value.is_none()) input_.emplace(value, op, argument);
  }
  const TensorView* get() const { return input_ ? &**input_ : nullptr; }

 private:
  std::optional<Input> input_;
};

// `out=`: None, or an ndarray (never converted: the caller expects its own memory to change).
class OutInput {
 public:
  OutInput(py::handle value, const char* op);
  const TensorView* get() const { return given_ ? &view_ : nullptr; }
  // The result as Python sees it: the given `out`, or a new array that owns its block.
  py::object result(Array&& array) const;

 private:
  TensorView view_;
  py::handle given_;
};

// An ndarray that the op changes in place; never converted. Borrows `value`.
TensorView in_place(py::handle value, const char* op, const char* argument);

// An owning array becomes an ndarray whose base returns the block when collected.
py::object to_numpy(Array&& array);

// Runs f without the GIL; f must touch no Python object.
template <class F>
auto unlocked(F&& f) {
  struct Release {
    PyThreadState* state = PyEval_SaveThread();
    ~Release() { PyEval_RestoreThread(state); }
  } release;
  return f();
}

}  // namespace vectile
