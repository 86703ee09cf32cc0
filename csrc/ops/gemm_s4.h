// gemm_s4 family: weights in 4 bits, scaled by groups, for linear.
#pragma once

#include <memory>

#include "kernels/gemm_types.h"
#include "ops/common.h"

namespace vectile::ops {

// A weight (out, in) in 4 bits; `group` neighbours along `in` share a scale and a zero point:
// w[i, k] ~ scales[i, k / group] (values[i, k] - zero_points[i, k / group]).
// Laid out for the kernels of the tier that was active when it was made.
class Int4Matrix {
 public:
  // values (out, in): int8 in -8..7 without zero points (null), else uint8 in 0..15; scales and
  // zero points (out, ceil(in / group)), positive finite floats and uint8 in 0..15.
  Int4Matrix(const TensorView& values, const TensorView& scales, const TensorView* zero_points,
             i64 group);
  DType dtype() const { return scales_.dtype; }
  i64 rows() const { return n_; }     // out
  i64 columns() const { return k_; }  // in
  i64 group() const { return group_; }
  i64 bytes() const;
  bool symmetric() const { return !zeros_.get(); }
  const Kernels& kernels() const { return *kernels_; }
  Array values() const;
  Array scales() const;
  Array zero_points() const;  // only if not symmetric
  Array dequantize() const;   // (out, in) of dtype()
  const std::uint8_t* strips() const { return strips_.get(); }
  template <class T>
  const T* strip_scales() const {
    return scales_.as<T>();
  }
  const std::uint8_t* strip_zeros() const { return zeros_.get(); }

 private:
  i64 groups() const { return ceil_div(k_, group_); }

  i64 n_, k_, group_;
  int nr_;
  const Kernels* kernels_;
  Array scales_;  // (strips, groups, nr)
  Buffer<std::uint8_t> zeros_, strips_;
};

// Symmetric: scale = max(max w / 7, -min w / 8) of the group. Else scale = (max(w, 0) - min(w, 0))
// / 15 and the zero point that rounds -min(w, 0) / scale. Both: |w - dequantized| <= scale / 2.
std::unique_ptr<Int4Matrix> quantize_weight_4bit(const TensorView& weight, i64 group,
                                                 bool symmetric);

// activation(x weight^T + bias) + residual with the groups of x quantised to 8 bits on the way.
Array linear(const TensorView& x, const Int4Matrix& weight, const TensorView* bias,
             Activation activation, const TensorView* residual = nullptr);

}  // namespace vectile::ops
