// The shapes of np.matmul: 1-D operands, broadcast batch dimensions, one product after the other.
#pragma once

#include "ops/check.h"

namespace vectile::ops {

// `v` with an axis of length 1 inserted; no data moves.
TensorView with_axis(const TensorView& v, int axis);

// The batch dimensions of c[i] = a[i] b[i]; strides in elements, zero where an operand is
// broadcast.
struct Batch {
  Shape shape;
  i64 a[kMaxDims], b[kMaxDims], c[kMaxDims];

  // Of the axes of c before its last two; a and b have at least two axes.
  Batch(const TensorView& a, const TensorView& b, const TensorView& c);
  i64 count() const { return shape.elements(); }
  // Element offsets of product `index`.
  struct Offsets {
    i64 a = 0, b = 0, c = 0;
  };
  Offsets at(i64 index) const;
};

// Products g that share B are one taller product when A's and C's rows continue across the batch.
template <class G>
void fold_into_rows(Batch& batch, G& g) {
  for (Shape& shape = batch.shape; shape.ndim > 0; --shape.ndim) {
    const int d = shape.ndim - 1;
    const bool follows = g.m == 1 || (batch.a[d] == g.m * g.a_row && batch.c[d] == g.m * g.c_row);
    if (batch.b[d] != 0 || !follows) return;
    if (g.m == 1) g.a_row = batch.a[d], g.c_row = batch.c[d];
    g.m *= shape[d];
  }
}

// Checked operands of a product: both with at least two axes, k columns of a meeting k rows of b.
struct MatmulShape {
  TensorView a, b;
  bool vector_a, vector_b;
  Shape result;

  // Throws ValueError when the shapes of x and y do not go together.
  MatmulShape(const char* op, const TensorView& x, const TensorView& y);
  TensorView matrix(const TensorView& result) const;  // (..., m, n), the dropped axes restored
};

}  // namespace vectile::ops
