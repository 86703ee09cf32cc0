#include "optimizer.h"

#include "array.h"

namespace vectile::cuda {

void bind_optimizer(nb::module_& m) {
  m.def(
      "sgd_",
      [](nb::handle params, nb::handle grads, nb::handle momentum_buffers, double lr,
         double momentum, double dampening, double weight_decay, bool nesterov,
         std::uintptr_t stream) {
        constexpr const char* op = "sgd_";
        const InputList p(params, op, "params"), g(grads, op, "grads");
        const OptionalInputList b(momentum_buffers, op, "momentum_buffers");
        const OnDevice here(op, stream, p, g, b);
        unlocked([&] { sgd(*p, *g, b.get(), {lr, momentum, dampening, weight_decay, nesterov}); });
      },
      nb::arg("params"), nb::arg("grads"), nb::arg("momentum_buffers").none(), nb::arg("lr"),
      nb::arg("momentum"), nb::arg("dampening"), nb::arg("weight_decay"), nb::arg("nesterov"),
      nb::arg("stream") = 0);
  const auto bind_adam = [&m](const char* name, bool decoupled) {
    m.def(
        name,
        [name, decoupled](nb::handle params, nb::handle grads, nb::handle exp_avgs,
                          nb::handle exp_avg_sqs, double lr, double beta1, double beta2, double eps,
                          double weight_decay, i64 step, std::uintptr_t stream) {
          const InputList p(params, name, "params"), g(grads, name, "grads");
          const InputList e(exp_avgs, name, "exp_avgs"), s(exp_avg_sqs, name, "exp_avg_sqs");
          const OnDevice here(name, stream, p, g, e, s);
          unlocked([&] {
            adam(name, *p, *g, *e, *s, {lr, beta1, beta2, eps, weight_decay, step, decoupled});
          });
        },
        nb::arg("params"), nb::arg("grads"), nb::arg("exp_avgs"), nb::arg("exp_avg_sqs"),
        nb::arg("lr"), nb::arg("beta1"), nb::arg("beta2"), nb::arg("eps"), nb::arg("weight_decay"),
        nb::arg("step"), nb::arg("stream") = 0);
  };
  bind_adam("adam_", false);
  bind_adam("adamw_", true);
  m.def(
      "rmsprop_",
      [](nb::handle params, nb::handle grads, nb::handle square_avgs, nb::handle momentum_buffers,
         double lr, double alpha, double eps, double weight_decay, double momentum,
         std::uintptr_t stream) {
        constexpr const char* op = "rmsprop_";
        const InputList p(params, op, "params"), g(grads, op, "grads");
        const InputList s(square_avgs, op, "square_avgs");
        const OptionalInputList b(momentum_buffers, op, "momentum_buffers");
        const OnDevice here(op, stream, p, g, s, b);
        unlocked([&] { rmsprop(*p, *g, *s, b.get(), {lr, alpha, eps, weight_decay, momentum}); });
      },
      nb::arg("params"), nb::arg("grads"), nb::arg("square_avgs"),
      nb::arg("momentum_buffers").none(), nb::arg("lr"), nb::arg("alpha"), nb::arg("eps"),
      nb::arg("weight_decay"), nb::arg("momentum"), nb::arg("stream") = 0);
  m.def(
      "scale_",
      [](nb::handle arrays, double factor, std::uintptr_t stream) {
        const InputList a(arrays, "scale_", "arrays");
        const OnDevice here("scale_", stream, a);
        unlocked([&] { scale(*a, factor); });
      },
      nb::arg("arrays"), nb::arg("factor"), nb::arg("stream") = 0);
  m.def(
      "clip_grad_norm_",
      [](nb::handle grads, double max_norm, std::uintptr_t stream) {
        const InputList g(grads, "clip_grad_norm_", "grads");
        const OnDevice here("clip_grad_norm_", stream, g);
        return to_python(unlocked([&] { return clip_grad_norm(*g, max_norm); }));
      },
      nb::arg("grads"), nb::arg("max_norm"), nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
