#include "norm.h"

#include "array.h"

namespace vectile::cuda {
namespace {

nb::object optional(Array&& a) { return a.data ? to_python(std::move(a)) : nb::none(); }

// y alone, or a tuple of y and what else there is: sum, mean, rstd.
nb::object normalised(Normalised&& r) {
  nb::list results;
  for (Array* a : {&r.y, &r.sum, &r.mean, &r.rstd})
    if (a->data) results.append(to_python(std::move(*a)));
  if (results.size() == 1) return results[0];
  return nb::tuple(results);
}

nb::tuple gradients(NormGradient&& r, bool bias) {
  const nb::object dx = to_python(std::move(r.dx)), dweight = optional(std::move(r.dweight));
  if (!bias) return nb::make_tuple(dx, dweight);
  return nb::make_tuple(dx, dweight, optional(std::move(r.dbias)));
}

void bind_groups(nb::module_& m) {
  m.def(
      "batch_norm",
      [](nb::handle x, nb::handle running_mean, nb::handle running_var, nb::handle weight,
         nb::handle bias, bool training, double momentum, double eps, bool return_stats,
         std::uintptr_t stream) {
        constexpr const char* op = "batch_norm";
        const Input in(x, op, "x");
        const OptionalInput w(weight, op, "weight"), b(bias, op, "bias");
        const OptionalInput mean(running_mean, op, "running_mean");
        const OptionalInput var(running_var, op, "running_var");
        const OnDevice here(op, stream, in, w, b, mean, var);
        Normalised r = unlocked([&] {
          return batch_norm(*in, mean.get(), var.get(), w.get(), b.get(), training, momentum, eps);
        });
        return return_stats ? normalised(std::move(r)) : to_python(std::move(r.y));
      },
      nb::arg("x"), nb::arg("running_mean") = nb::none(), nb::arg("running_var") = nb::none(),
      nb::arg("weight") = nb::none(), nb::arg("bias") = nb::none(), nb::arg("training") = false,
      nb::arg("momentum") = 0.1, nb::arg("eps") = 1e-5, nb::arg("return_stats") = false,
      nb::arg("stream") = 0);
  m.def(
      "batch_norm_backward",
      [](nb::handle grad, nb::handle x, nb::handle weight, nb::handle mean, nb::handle rstd,
         bool training, std::uintptr_t stream) {
        constexpr const char* op = "batch_norm_backward";
        const Input g(grad, op, "grad"), in(x, op, "x"), mu(mean, op, "mean"), s(rstd, op, "rstd");
        const OptionalInput w(weight, op, "weight");
        const OnDevice here(op, stream, g, in, w, mu, s);
        return gradients(
            unlocked([&] { return batch_norm_backward(*g, *in, w.get(), *mu, *s, training); }),
            true);
      },
      nb::arg("grad"), nb::arg("x"), nb::arg("weight").none(), nb::arg("mean"), nb::arg("rstd"),
      nb::arg("training"), nb::arg("stream") = 0);
  m.def(
      "group_norm",
      [](nb::handle x, i64 num_groups, nb::handle weight, nb::handle bias, double eps,
         bool return_stats, std::uintptr_t stream) {
        constexpr const char* op = "group_norm";
        const Input in(x, op, "x");
        const OptionalInput w(weight, op, "weight"), b(bias, op, "bias");
        const OnDevice here(op, stream, in, w, b);
        Normalised r = unlocked([&] { return group_norm(*in, num_groups, w.get(), b.get(), eps); });
        return return_stats ? normalised(std::move(r)) : to_python(std::move(r.y));
      },
      nb::arg("x"), nb::arg("num_groups"), nb::arg("weight") = nb::none(),
      nb::arg("bias") = nb::none(), nb::arg("eps") = 1e-5, nb::arg("return_stats") = false,
      nb::arg("stream") = 0);
  m.def(
      "group_norm_backward",
      [](nb::handle grad, nb::handle x, i64 num_groups, nb::handle weight, nb::handle mean,
         nb::handle rstd, std::uintptr_t stream) {
        constexpr const char* op = "group_norm_backward";
        const Input g(grad, op, "grad"), in(x, op, "x"), mu(mean, op, "mean"), s(rstd, op, "rstd");
        const OptionalInput w(weight, op, "weight");
        const OnDevice here(op, stream, g, in, w, mu, s);
        return gradients(
            unlocked([&] { return group_norm_backward(*g, *in, num_groups, w.get(), *mu, *s); }),
            true);
      },
      nb::arg("grad"), nb::arg("x"), nb::arg("num_groups"), nb::arg("weight").none(),
      nb::arg("mean"), nb::arg("rstd"), nb::arg("stream") = 0);
}

}  // namespace

void bind_norm(nb::module_& m) {
  bind_groups(m);
  m.def(
      "layer_norm",
      [](nb::handle x, nb::handle weight, nb::handle bias, double eps, bool return_stats,
         std::uintptr_t stream) {
        constexpr const char* op = "layer_norm";
        const Input in(x, op, "x");
        const OptionalInput w(weight, op, "weight"), b(bias, op, "bias");
        const OnDevice here(op, stream, in, w, b);
        return normalised(
            unlocked([&] { return layer_norm(*in, w.get(), b.get(), eps, return_stats); }));
      },
      nb::arg("x"), nb::arg("weight") = nb::none(), nb::arg("bias") = nb::none(),
      nb::arg("eps") = 1e-5, nb::arg("return_stats") = false, nb::arg("stream") = 0);
  m.def(
      "rms_norm",
      [](nb::handle x, nb::handle weight, double eps, bool return_stats, std::uintptr_t stream) {
        const Input in(x, "rms_norm", "x");
        const OptionalInput w(weight, "rms_norm", "weight");
        const OnDevice here("rms_norm", stream, in, w);
        return normalised(unlocked([&] { return rms_norm(*in, w.get(), eps, return_stats); }));
      },
      nb::arg("x"), nb::arg("weight") = nb::none(), nb::arg("eps") = 1e-6,
      nb::arg("return_stats") = false, nb::arg("stream") = 0);
  m.def(
      "add_layer_norm",
      [](nb::handle x, nb::handle residual, nb::handle weight, nb::handle bias, double eps,
         bool return_stats, std::uintptr_t stream) {
        constexpr const char* op = "add_layer_norm";
        const Input in(x, op, "x"), rest(residual, op, "residual");
        const OptionalInput w(weight, op, "weight"), b(bias, op, "bias");
        const OnDevice here(op, stream, in, rest, w, b);
        return normalised(unlocked(
            [&] { return add_layer_norm(*in, *rest, w.get(), b.get(), eps, return_stats); }));
      },
      nb::arg("x"), nb::arg("residual"), nb::arg("weight") = nb::none(),
      nb::arg("bias") = nb::none(), nb::arg("eps") = 1e-5, nb::arg("return_stats") = false,
      nb::arg("stream") = 0);
  m.def(
      "add_rms_norm",
      [](nb::handle x, nb::handle residual, nb::handle weight, double eps, bool return_stats,
         std::uintptr_t stream) {
        constexpr const char* op = "add_rms_norm";
        const Input in(x, op, "x"), rest(residual, op, "residual");
        const OptionalInput w(weight, op, "weight");
        const OnDevice here(op, stream, in, rest, w);
        return normalised(
            unlocked([&] { return add_rms_norm(*in, *rest, w.get(), eps, return_stats); }));
      },
      nb::arg("x"), nb::arg("residual"), nb::arg("weight") = nb::none(), nb::arg("eps") = 1e-6,
      nb::arg("return_stats") = false, nb::arg("stream") = 0);
  m.def(
      "layer_norm_backward",
      [](nb::handle grad, nb::handle x, nb::handle weight, nb::handle mean, nb::handle rstd,
         std::uintptr_t stream) {
        constexpr const char* op = "layer_norm_backward";
        const Input g(grad, op, "grad"), in(x, op, "x"), mu(mean, op, "mean"), s(rstd, op, "rstd");
        const OptionalInput w(weight, op, "weight");
        const OnDevice here(op, stream, g, in, w, mu, s);
        return gradients(unlocked([&] { return layer_norm_backward(*g, *in, w.get(), *mu, *s); }),
                         true);
      },
      nb::arg("grad"), nb::arg("x"), nb::arg("weight").none(), nb::arg("mean"), nb::arg("rstd"),
      nb::arg("stream") = 0);
  m.def(
      "rms_norm_backward",
      [](nb::handle grad, nb::handle x, nb::handle weight, nb::handle rstd, std::uintptr_t stream) {
        constexpr const char* op = "rms_norm_backward";
        const Input g(grad, op, "grad"), in(x, op, "x"), s(rstd, op, "rstd");
        const OptionalInput w(weight, op, "weight");
        const OnDevice here(op, stream, g, in, w, s);
        return gradients(unlocked([&] { return rms_norm_backward(*g, *in, w.get(), *s); }), false);
      },
      nb::arg("grad"), nb::arg("x"), nb::arg("weight").none(), nb::arg("rstd"),
      nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
