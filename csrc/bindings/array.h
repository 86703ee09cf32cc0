// NumPy arrays <-> TensorView, without a copy; the GIL around kernels. The only pybind11 glue.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <utility>

#include "ops/common.h"

namespace vectile {

namespace py = pybind11;

// The dtype of a NumPy descriptor; `other` for what no kernel takes.
DType dtype_from_numpy(PyObject* descr);
py::dtype dtype_to_numpy(DType dtype);

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
