// DLPack arrays <-> TensorView, without a copy; the only nanobind glue.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <optional>
#include <utility>

#include "runtime.h"

namespace vectile::cuda {

namespace nb = nanobind;
using AnyArray = nb::ndarray<>;

// One array argument on a GPU: whatever speaks DLPack (CuPy, torch, JAX, what these ops return).
class Input {
 public:
  Input(nb::handle value, const char* op, const char* argument);
  const TensorView& operator*() const { return view_; }
  const TensorView* operator->() const { return &view_; }
  int device() const { return device_; }

 protected:
  TensorView view_;
  AnyArray owner_;
  int device_ = 0;
};

// An argument that may be None.
class OptionalInput {
 public:
  OptionalInput(nb::handle value, const char* op, const char* argument) {
    if (!value.is_none()) input_.emplace(value, op, argument);
  }
  const TensorView* get() const { return input_ ? &**input_ : nullptr; }
  const std::optional<Input>& input() const { return input_; }

 private:
  std::optional<Input> input_;
};

// Checks that all arrays of a call are on one device, and makes the call there while it lives.
class OnDevice {
 public:
  template <class... In>
  OnDevice([[maybe_unused]] const char* op, std::uintptr_t stream, const Input& first, const In&... more)
      : call_(first.device(), reinterpret_cast<Stream>(stream)) {
    (meet(op, first.device(), more), ...);
  }

 private:
  static void meet(const char* op, int device, const Input& x);
  static void meet(const char* op, int device, const OptionalInput& x) {
    if (x.input()) meet(op, device, *x.input());
  }
  Call call_;
};

// A new array as an object that exports DLPack; or `out`, where the op was given one.
nb::object to_python(Array&& array, nb::handle out = nb::none());

// Runs f without the GIL; f must touch no Python object.
template <class F>
auto unlocked(F&& f) {
  nb::gil_scoped_release release;
  return f();
}

}  // namespace vectile::cuda
