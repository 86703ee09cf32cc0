#include "ops/norm.h"

#include "bindings/array.h"

namespace vectile {
namespace {

py::object optional(Array&& a) { return a.data ? to_numpy(std::move(a)) : py::none(); }

// Running statistics: None, an array that training changes in place, or one that is only read.
class Running {
 public:
  Running(py::handle value, bool training, const char* op, const char* name) {
    if (value.is_none()) return;
    if (training)
      view_ = in_place(value, op, name);
    else
      read_.emplace(value, op, name);
  }
  const TensorView* get() const { return read_ ? &**read_ : view_ ? &*view_ : nullptr; }

 private:
  std::optional<TensorView> view_;
  std::optional<Input> read_;
};

py::object normalised(ops::Normalised&& r, bool return_stats) {
  py::object y = to_numpy(std::move(r.y));
  if (!return_stats) return y;
  return py::make_tuple(y, to_numpy(std::move(r.mean)), to_numpy(std::move(r.rstd)));
}

py::tuple gradients(ops::NormGradient&& r) {
  return py::make_tuple(to_numpy(std::move(r.dx)), optional(std::move(r.dweight)),
                        optional(std::move(r.dbias)));
}

void bind_groups(py::module_& m) {
  define(
      m, "batch_norm",
      [](py::handle x, py::handle running_mean, py::handle running_var, py::handle weight,
         py::handle bias, bool training, double momentum, double eps, bool return_stats) {
        constexpr const char* op = "batch_norm";
        const Input in(x, op, "x");
        const OptionalInput w(weight, op, "weight"), b(bias, op, "bias");
        const Running mean(running_mean, training, op, "running_mean");
        const Running var(running_var, training, op, "running_var");
        return normalised(unlocked([&] {
                            return ops::batch_norm(*in, mean.get(), var.get(), w.get(), b.get(),
                                                   training, momentum, eps);
                          }),
                          return_stats);
      },
      py::arg("x"), py::arg("running_mean") = py::none(), py::arg("running_var") = py::none(),
      py::arg("weight") = py::none(), py::arg("bias") = py::none(), py::arg("training") = false,
      py::arg("momentum") = 0.1, py::arg("eps") = 1e-5, py::arg("return_stats") = false);
  define(
      m, "batch_norm_backward",
      [](py::handle grad, py::handle x, py::handle weight, py::handle mean, py::handle rstd,
         bool training) {
        constexpr const char* op = "batch_norm_backward";
        const Input g(grad, op, "grad"), in(x, op, "x"), mu(mean, op, "mean"), s(rstd, op, "rstd");
        const OptionalInput w(weight, op, "weight");
        return gradients(unlocked(
            [&] { return ops::batch_norm_backward(*g, *in, w.get(), *mu, *s, training); }));
      },
      py::arg("grad"), py::arg("x"), py::arg("weight"), py::arg("mean"), py::arg("rstd"),
      py::arg("training"));
  define(
      m, "group_norm",
      [](py::handle x, i64 num_groups, py::handle weight, py::handle bias, double eps,
         bool return_stats) {
        constexpr const char* op = "group_norm";
        const Input in(x, op, "x");
        const OptionalInput w(weight, op, "weight"), b(bias, op, "bias");
        return normalised(
            unlocked([&] { return ops::group_norm(*in, num_groups, w.get(), b.get(), eps); }),
            return_stats);
      },
      py::arg("x"), py::arg("num_groups"), py::arg("weight") = py::none(),
      py::arg("bias") = py::none(), py::arg("eps") = 1e-5, py::arg("return_stats") = false);
  define(
      m, "group_norm_backward",
      [](py::handle grad, py::handle x, i64 num_groups, py::handle weight, py::handle mean,
         py::handle rstd) {
        constexpr const char* op = "group_norm_backward";
        const Input g(grad, op, "grad"), in(x, op, "x"), mu(mean, op, "mean"), s(rstd, op, "rstd");
        const OptionalInput w(weight, op, "weight");
        return gradients(unlocked(
            [&] { return ops::group_norm_backward(*g, *in, num_groups, w.get(), *mu, *s); }));
      },
      py::arg("grad"), py::arg("x"), py::arg("num_groups"), py::arg("weight"), py::arg("mean"),
      py::arg("rstd"));
}

}  // namespace

void bind_norm(py::module_& m) {
  bind_groups(m);
  define(
      m, "layer_norm",
      [](py::handle x, py::handle weight, py::handle bias, double eps,
         bool return_stats) -> py::object {
        constexpr const char* op = "layer_norm";
        const Input in(x, op, "x");
        const OptionalInput w(weight, op, "weight"), b(bias, op, "bias");
        auto r =
            unlocked([&] { return ops::layer_norm(*in, w.get(), b.get(), eps, return_stats); });
        py::object y = to_numpy(std::move(r.y));
        if (!return_stats) return y;
        return py::make_tuple(y, to_numpy(std::move(r.mean)), to_numpy(std::move(r.rstd)));
      },
      py::arg("x"), py::arg("weight") = py::none(), py::arg("bias") = py::none(),
      py::arg("eps") = 1e-5, py::arg("return_stats") = false);
  define(
      m, "rms_norm",
      [](py::handle x, py::handle weight, double eps, bool return_stats) -> py::object {
        const Input in(x, "rms_norm", "x");
        const OptionalInput w(weight, "rms_norm", "weight");
        auto r = unlocked([&] { return ops::rms_norm(*in, w.get(), eps, return_stats); });
        py::object y = to_numpy(std::move(r.y));
        if (!return_stats) return y;
        return py::make_tuple(y, to_numpy(std::move(r.rstd)));
      },
      py::arg("x"), py::arg("weight") = py::none(), py::arg("eps") = 1e-6,
      py::arg("return_stats") = false);
  define(
      m, "add_layer_norm",
      [](py::handle x, py::handle residual, py::handle weight, py::handle bias, double eps,
         bool return_stats) -> py::object {
        constexpr const char* op = "add_layer_norm";
        const Input in(x, op, "x"), rest(residual, op, "residual");
        const OptionalInput w(weight, op, "weight"), b(bias, op, "bias");
        auto r = unlocked(
            [&] { return ops::add_layer_norm(*in, *rest, w.get(), b.get(), eps, return_stats); });
        py::object y = to_numpy(std::move(r.y)), sum = to_numpy(std::move(r.sum));
        if (!return_stats) return py::make_tuple(y, sum);
        return py::make_tuple(y, sum, to_numpy(std::move(r.mean)), to_numpy(std::move(r.rstd)));
      },
      py::arg("x"), py::arg("residual"), py::arg("weight") = py::none(),
      py::arg("bias") = py::none(), py::arg("eps") = 1e-5, py::arg("return_stats") = false);
  define(
      m, "add_rms_norm",
      [](py::handle x, py::handle residual, py::handle weight, double eps,
         bool return_stats) -> py::object {
        constexpr const char* op = "add_rms_norm";
        const Input in(x, op, "x"), rest(residual, op, "residual");
        const OptionalInput w(weight, op, "weight");
        auto r =
            unlocked([&] { return ops::add_rms_norm(*in, *rest, w.get(), eps, return_stats); });
        py::object y = to_numpy(std::move(r.y)), sum = to_numpy(std::move(r.sum));
        if (!return_stats) return py::make_tuple(y, sum);
        return py::make_tuple(y, sum, to_numpy(std::move(r.rstd)));
      },
      py::arg("x"), py::arg("residual"), py::arg("weight") = py::none(), py::arg("eps") = 1e-6,
      py::arg("return_stats") = false);
  define(
      m, "layer_norm_backward",
      [](py::handle grad, py::handle x, py::handle weight, py::handle mean, py::handle rstd) {
        constexpr const char* op = "layer_norm_backward";
        const Input g(grad, op, "grad"), in(x, op, "x"), mu(mean, op, "mean"), s(rstd, op, "rstd");
        const OptionalInput w(weight, op, "weight");
        auto r = unlocked([&] { return ops::layer_norm_backward(*g, *in, w.get(), *mu, *s); });
        return py::make_tuple(to_numpy(std::move(r.dx)), optional(std::move(r.dweight)),
                              optional(std::move(r.dbias)));
      },
      py::arg("grad"), py::arg("x"), py::arg("weight"), py::arg("mean"), py::arg("rstd"));
  define(
      m, "rms_norm_backward",
      [](py::handle grad, py::handle x, py::handle weight, py::handle rstd) {
        constexpr const char* op = "rms_norm_backward";
        const Input g(grad, op, "grad"), in(x, op, "x"), s(rstd, op, "rstd");
        const OptionalInput w(weight, op, "weight");
        auto r = unlocked([&] { return ops::rms_norm_backward(*g, *in, w.get(), *s); });
        return py::make_tuple(to_numpy(std::move(r.dx)), optional(std::move(r.dweight)));
      },
      py::arg("grad"), py::arg("x"), py::arg("weight"), py::arg("rstd"));
}

}  // namespace vectile
