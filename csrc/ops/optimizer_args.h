// The options and arguments of the optimizer family, checked the same way for every device.
#pragma once

#include <vector>

#include "ops/check.h"

namespace vectile::ops {

// One argument of a step: a list of arrays, parallel to the list of parameters.
using TensorList = std::vector<TensorView>;

struct SgdOptions {
  double lr, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false;
};
struct AdamOptions {
  double lr, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  i64 step = 1;            // of this update, from 1
  bool decoupled = false;  // AdamW
};
struct RmspropOptions {
  double lr, alpha = 0.99, eps = 1e-8, weight_decay = 0, momentum = 0;
};

struct ListArgument {
  const char* name;
  const TensorList* list;  // null: not given
  bool written = true;
  bool state = false;
};

// The first list is that of the parameters.
void check_lists(const char* op, const ListArgument* arguments, int count);

void sgd_args(const char* op, const TensorList* momentum_buffers, const SgdOptions& o);
void adam_args(const char* op, const AdamOptions& o);
void rmsprop_args(const char* op, const TensorList* momentum_buffers, const RmspropOptions& o);

// p = decay p;  g += l2 p;  p -= size m / (unbias sqrt v + eps)
struct AdamFactors {
  double decay, l2, size, unbias;
};
AdamFactors adam_factors(const AdamOptions& o);

}  // namespace vectile::ops
