// recurrent family: one direction of one layer of rnn, lstm or gru over whole sequences. With G
// gates (rnn 1, lstm 4: i f g o, gru 3: r z n): x (T, B, I), h0 and c0 (B, H) or null (zeros),
// w_ih (G H, I), w_hh (G H, H), b_ih and b_hh (G H,) or null; lengths (B,) integers in [0, T] or
// null.
#pragma once

#include <tuple>

#include "kernels/recurrent_types.h"
#include "ops/common.h"

namespace vectile::ops {

struct RecurrentArguments {
  CellKind kind;
  const TensorView &x, *h0, *c0;  // c0: lstm only
  const TensorView &w_ih, &w_hh, *b_ih, *b_hh;
  bool reverse;
  const TensorView* lengths;
};

// states (T + 1, B, H): y, then h_n; lstm (T + 2, B, H): then c_n. gates and c are what the
// backward needs; empty where the cell keeps none or `keep` is not set.
struct RecurrentStates {
  Array states, gates, c;
  auto results() { return std::tie(states); }  // what is kept is float32 beside a half type
};
RecurrentStates recurrent(const RecurrentArguments& a, bool keep);

struct RecurrentGradients {
  Array dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh;  // empty where not asked for
  auto results() { return std::tie(dx, dh0, dc0, dw_ih, dw_hh, db_ih, db_hh); }
};

// grad: of `states`. dx and the parameters' gradients are computed where asked for.
RecurrentGradients recurrent_backward(const RecurrentArguments& a, const TensorView& grad,
                                      const TensorView& states, const TensorView* gates,
                                      const TensorView* c, bool want_x, bool want_parameters);

}  // namespace vectile::ops
