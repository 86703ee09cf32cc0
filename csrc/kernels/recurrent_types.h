// What the recurrent kernels and the op that drives them agree on.
#pragma once

#include "base/types.h"

namespace vectile {

enum class CellKind { rnn_tanh, rnn_relu, lstm, gru };

// A cell has `gates` blocks of `hidden` rows in its weights, and keeps `slots` blocks of columns
// per step:
//   rnn   h
//   lstm  i f g o
//   gru   r z n q    q = W_hn h + b_hn, the part of n that r scales
// The slots of the ranges, side by side, meet the rows of w_hh in order.
struct CellRange {
  int slot, gate, count;
};
struct CellShape {
  int gates, slots, range_count;
  CellRange range[2];
  constexpr const CellRange* begin() const { return range; }
  constexpr const CellRange* end() const { return range + range_count; }
};
constexpr CellShape cell_shape(CellKind kind) {
  return kind == CellKind::lstm  ? CellShape{4, 4, 1, {{0, 0, 4}, {}}}
         : kind == CellKind::gru ? CellShape{3, 4, 2, {{0, 0, 2}, {3, 2, 1}}}
                                 : CellShape{1, 1, 1, {{0, 0, 1}, {}}};
}

// One direction of one layer over a whole sequence. A sequence past its length keeps its state and
// outputs zeros; `reverse` runs from each sequence's last step to its first.
struct RecurrentShape {
  CellKind kind;
  bool reverse;
  i64 steps, batch, hidden;
  i64 gate_row;        // elements between rows of gates and dgates
  i64 rows;            // most rows of the batch that one call takes
  const i64* lengths;  // (batch,), or null: all are `steps`
};

template <class T>
struct RecurrentForward {
  RecurrentShape shape;
  const T*
      weight;     // recurrent_pack, forward; null: the products with h0 have been added (steps = 1)
  const T* bias;  // (slots, hidden)
  const T *h0, *c0;  // (batch, hidden)
  T* gates;  // (steps, batch, gate_row): products of the inputs, replaced by the activated slots
  T* y;      // (steps, batch, hidden); for rnn the same memory as gates
  T* c;      // lstm: (steps, batch, hidden), or null where no backward follows
  T *h_n, *c_n;  // (batch, hidden)
};

template <class T>
struct RecurrentBackward {
  RecurrentShape shape;
  const T* weight;                   // recurrent_pack, backward
  const T *h0, *c0, *gates, *y, *c;  // as the forward left them; gates: not of rnn
  const T *dy, *dh_n, *dc_n;
  T* dgates;     // (steps, batch, gate_row)
  T *dh0, *dc0;  // (batch, hidden)
};

}  // namespace vectile
