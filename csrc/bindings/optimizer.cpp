#include "ops/optimizer.h"

#include <optional>

#include "bindings/array.h"

namespace vectile {
namespace {

// A list or tuple of ndarrays, as they are: a converted copy would take the update with it.
class Arrays {
 public:
  Arrays(py::handle value, const char* op, const char* argument)
      : sequence_(sequence(value, op, argument)) {
    const auto n = PySequence_Fast_GET_SIZE(sequence_.ptr());
    views_.reserve(n);
    for (Py_ssize_t i = 0; i < n; ++i)
      views_.push_back(in_place(PySequence_Fast_GET_ITEM(sequence_.ptr(), i), op, argument));
  }
  const ops::TensorList& operator*() const { return views_; }

 private:
  static py::object sequence(py::handle value, const char* op, const char* argument) {
    if (!PyList_Check(value.ptr()) && !PyTuple_Check(value.ptr()))
      fail<TypeError>(op, argument, "type", "a list or tuple of arrays",
                      Py_TYPE(value.ptr())->tp_name);
    // A tuple of its own: the list may change once the GIL is released.
    auto own = py::reinterpret_steal<py::object>(PySequence_Tuple(value.ptr()));
    if (!own) throw py::error_already_set();
    return own;
  }

  py::object sequence_;
  ops::TensorList views_;
};

class OptionalArrays {
 public:
  OptionalArrays(py::handle value, const char* op, const char* argument) {
    if (!value.is_none()) arrays_.emplace(value, op, argument);
  }
  const ops::TensorList* get() const { return arrays_ ? &**arrays_ : nullptr; }

 private:
  std::optional<Arrays> arrays_;
};

}  // namespace

void bind_optimizer(py::module_& m) {
  define(m, "sgd_",
         [](py::handle params, py::handle grads, py::handle momentum_buffers, double lr,
            double momentum, double dampening, double weight_decay, bool nesterov) {
           const Arrays p(params, "sgd_", "params"), g(grads, "sgd_", "grads");
           const OptionalArrays b(momentum_buffers, "sgd_", "momentum_buffers");
           unlocked([&] {
             ops::sgd(*p, *g, b.get(), {lr, momentum, dampening, weight_decay, nesterov});
           });
         });
  const auto adam = [&m](const char* name, bool decoupled) {
    define(m, name,
           [name, decoupled](py::handle params, py::handle grads, py::handle exp_avgs,
                             py::handle exp_avg_sqs, double lr, double beta1, double beta2,
                             double eps, double weight_decay, i64 step) {
             const Arrays p(params, name, "params"), g(grads, name, "grads");
             const Arrays e(exp_avgs, name, "exp_avgs"), s(exp_avg_sqs, name, "exp_avg_sqs");
             unlocked([&] {
               ops::adam(name, *p, *g, *e, *s,
                         {lr, beta1, beta2, eps, weight_decay, step, decoupled});
             });
           });
  };
  adam("adam_", false);
  adam("adamw_", true);
  define(
      m, "rmsprop_",
      [](py::handle params, py::handle grads, py::handle square_avgs, py::handle momentum_buffers,
         double lr, double alpha, double eps, double weight_decay, double momentum) {
        constexpr const char* op = "rmsprop_";
        const Arrays p(params, op, "params"), g(grads, op, "grads"),
            s(square_avgs, op, "square_avgs");
        const OptionalArrays b(momentum_buffers, op, "momentum_buffers");
        unlocked(
            [&] { ops::rmsprop(*p, *g, *s, b.get(), {lr, alpha, eps, weight_decay, momentum}); });
      });
  define(m, "scale_", [](py::handle arrays, double factor) {
    const Arrays a(arrays, "scale_", "arrays");
    unlocked([&] { ops::scale(*a, factor); });
  });
}

}  // namespace vectile
