// The options and arguments of the loss family but for the values of targets, checked the same way
// for every device.
#pragma once

#include <string_view>
#include <utility>

#include "ops/check.h"

namespace vectile::ops {

enum class LossReduction { none, mean, sum };

struct CrossEntropyOptions {
  i64 ignore_index = -100;
  double label_smoothing = 0;
  LossReduction reduction = LossReduction::mean;
};

inline CrossEntropyOptions cross_entropy_options(const char* op, i64 ignore_index,
                                                 double label_smoothing,
                                                 std::string_view reduction) {
  constexpr std::pair<std::string_view, LossReduction> names[] = {
      {"none", LossReduction::none}, {"mean", LossReduction::mean}, {"sum", LossReduction::sum}};
  for (const auto& [name, value] : names)
    if (name == reduction) return {ignore_index, label_smoothing, value};
  fail(op, "reduction", "value", "'none', 'mean' or 'sum'", text("'", reduction, "'"));
}

inline void cross_entropy_args(const char* op, const TensorView& logits, const TensorView& targets,
                               const CrossEntropyOptions& o) {
  check_floating(op, "logits", logits);
  check(logits.ndim() > 0, op, "logits", "ndim", "at least 1", 0);
  check(o.label_smoothing >= 0 && o.label_smoothing <= 1, op, "label_smoothing", "value", "0 to 1",
        o.label_smoothing);
  Shape batch = logits.shape;
  --batch.ndim;
  check_shape(op, "targets", targets, batch);
}

// What the backward has beside them.
inline void cross_entropy_backward_args(const char* op, const TensorView& grad,
                                        const TensorView& logits, const TensorView& targets,
                                        const TensorView& lse, const CrossEntropyOptions& o) {
  check_parameter_dtype(op, "lse", lse, logits);
  check_shape(op, "lse", lse, targets.shape);
  check_same_dtype(op, "grad", grad, logits);
  check_shape(op, "grad", grad, o.reduction == LossReduction::none ? targets.shape : Shape());
}

}  // namespace vectile::ops
