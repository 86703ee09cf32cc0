// conv family: convolutions over one or two spatial axes, float32 or float64. A convolution, the
// gradient of its input and the gradient of its weights are closed under differentiation; the input
// gradient is also the transposed convolution.
#pragma once

#include "ops/common.h"

namespace vectile::ops {

// How the weights move over the input; with one spatial axis entry 0 is unused. The input is
// extended by pad_begin and pad_end zeros (cut, where pad_end is negative).
struct ConvSettings {
  i64 stride[2], pad_begin[2], pad_end[2], dilation[2], groups;
};

// weight (OC, C / groups, [kh,] kw); x (N, C, [H,] W) or without N; bias (OC,) or null
// -> activation(conv + bias) (N, OC, [OH,] OW), OH = (H + pads - dilation (kh - 1) - 1) / stride
// + 1. `op` is the name in errors, `axes` the number of spatial axes.
Array conv(const char* op, int axes, const TensorView& x, const TensorView& weight,
           const TensorView* bias, const ConvSettings& settings, Activation activation);

// Gradient of conv's x of shape `input` for `grad` of its result's; with a bias (C,) and an
// activation, the transposed convolution.
Array conv_input_grad(const char* op, int axes, const TensorView& grad, const TensorView& weight,
                      const TensorView* bias, const Shape& input, const ConvSettings& settings,
                      Activation activation);

// Gradient of conv's weight of shape `weight`.
Array conv_weight_grad(const char* op, int axes, const TensorView& grad, const TensorView& x,
                       const Shape& weight, const ConvSettings& settings);

}  // namespace vectile::ops
