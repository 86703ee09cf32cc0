#include "ops/optimizer_args.h"

#include <cmath>

namespace vectile::ops {
namespace {

std::string at(const char* name, std::size_t i) { return text(name, "[", i, "]"); }

void check_at_least_zero(const char* op, const char* name, double value) {
  check(value >= 0, op, name, "value", "at least 0", value);
}

void check_below_one(const char* op, const char* name, double value) {
  check(value >= 0 && value < 1, op, name, "value", "0 <= value < 1", value);
}

void check_buffers(const char* op, const TensorList* momentum_buffers, double momentum) {
  check(momentum_buffers || momentum == 0, op, "momentum_buffers", "value",
        "a list where momentum is not 0", "None");
}

}  // namespace

void check_lists(const char* op, const ListArgument* arguments, int count) {
  const TensorList& first = *arguments[0].list;
  for (int a = 0; a < count; ++a) {
    const auto& [name, list, written, state] = arguments[a];
    if (!list) continue;
    check(list->size() == first.size(), op, name, "length", first.size(), list->size());
    for (std::size_t i = 0; i < list->size(); ++i) {
      const TensorView& x = (*list)[i];
      if (a == 0 && i == 0) check_floating(op, at(name, i).c_str(), x);
      if (x.dtype != first[0].dtype) {
        const auto check_dtype = state ? check_parameter_dtype : check_same_dtype;
        check_dtype(op, at(name, i).c_str(), x, first[0]);
      }
      if (!(x.shape == first[i].shape)) check_shape(op, at(name, i).c_str(), x, first[i].shape);
      if (written && !x.writable)
        fail(op, at(name, i).c_str(), "flags", "a writable array", "a read-only one");
    }
  }
}

void sgd_args(const char* op, const TensorList* momentum_buffers, const SgdOptions& o) {
  check_at_least_zero(op, "lr", o.lr);
  check_at_least_zero(op, "momentum", o.momentum);
  check_at_least_zero(op, "weight_decay", o.weight_decay);
  check_buffers(op, momentum_buffers, o.momentum);
  check(!o.nesterov || (o.momentum > 0 && o.dampening == 0), op, "nesterov", "value",
        "False unless momentum > 0 and dampening = 0", "True");
}

void adam_args(const char* op, const AdamOptions& o) {
  check_at_least_zero(op, "lr", o.lr);
  check_below_one(op, "beta1", o.beta1);
  check_below_one(op, "beta2", o.beta2);
  check_at_least_zero(op, "eps", o.eps);
  check_at_least_zero(op, "weight_decay", o.weight_decay);
  check(o.step >= 1, op, "step", "value", "at least 1", o.step);
}

void rmsprop_args(const char* op, const TensorList* momentum_buffers, const RmspropOptions& o) {
  check_at_least_zero(op, "lr", o.lr);
  check(o.alpha >= 0 && o.alpha <= 1, op, "alpha", "value", "0 to 1", o.alpha);
  check_at_least_zero(op, "eps", o.eps);
  check_at_least_zero(op, "weight_decay", o.weight_decay);
  check_at_least_zero(op, "momentum", o.momentum);
  check_buffers(op, momentum_buffers, o.momentum);
}

AdamFactors adam_factors(const AdamOptions& o) {
  const auto t = static_cast<double>(o.step);
  return {o.decoupled ? 1 - o.lr * o.weight_decay : 1, o.decoupled ? 0 : o.weight_decay,
          o.lr / (1 - std::pow(o.beta1, t)), 1 / std::sqrt(1 - std::pow(o.beta2, t))};
}

}  // namespace vectile::ops
