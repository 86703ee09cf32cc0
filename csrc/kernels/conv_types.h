// What the convolution kernels and the ops that plan them agree on.
#pragma once

#include "kernels/gemm_types.h"

namespace vectile {

// One axis of an image: output i and tap t read source position origin + i * step + d[t], zero
// outside [0, size). In a copy the positions are sorted by (d % step), so that neighbouring outputs
// read neighbouring elements: phase[p] holds the remainders in use, each with outputs + reach
// elements.
struct ConvAxis {
  i64 size, step, origin, reach, phases, taps;
  const i64 *phase, *d;
};

// A kernel wider than this is met with a copy where a narrower one reads the image in place,
// masked.
constexpr std::size_t kMaxTapColumns = 16;

// Images as the taps see them. Channel c of image n, output pixel (y, x) and tap t is the element
//   n * n_pitch + c * c_pitch + y * y_pitch + x + tap[t]
// of `data`, or, when `copied`, of a padded copy of the block's rows that every block makes.
template <class T>
struct ConvImage {
  const T* data;  // unit stride along columns
  i64 n_stride, c_stride, h_stride;
  i64 channels;
  ConvAxis rows, columns;
  bool copied;
  i64 block_rows;  // output rows that a copy holds at most
  i64 n_pitch, c_pitch, y_pitch;
  const i64* tap;
  i64 taps;  // all columns.taps of the first row of the kernel, then of the next
};

// out[n, m, y, x] = activation(sum over c, t of weight[m, c, t] image[n, c, y, x, t] + bias[m])
template <class T>
struct Conv {
  ConvImage<T> image;
  i64 m, height, width;  // of the output
  const T* weight;       // panels of conv_pack
  i64 panel, kc;  // elements between panels; K = (c, t) and the bias is cut into pieces of kc
  bool bias;      // the last step of K, met with ones
  T* out;
  i64 out_n, out_m, out_y, out_x;
  bool joined;  // strips of pixels run on from image to image; needed unless pixels lie densely
  Activation activation;

  i64 depth() const { return image.channels * image.taps + bias; }
};

struct ConvBlock {  // the part that one call computes: images, output rows, panels of channels
  i64 n0, n1, y0, y1, p0, p1;
};

// The weights of `Conv`, element (m, c, t) at data[m * m_stride + c * c_stride + tap[t]].
template <class T>
struct ConvWeight {
  const T* data;
  i64 m, channels, taps, m_stride, c_stride;
  const i64* tap;
  bool dense;     // tap[t] == t
  const T* bias;  // or null
};

// Gradient of the weights: sum over n, y, x of grad[n, m, y, x] image[n, c, y, x, t].
template <class T>
struct ConvWeightGrad {
  ConvImage<T> image;
  i64 m, height, width;
  const T* grad;  // pixels of an image densely
  i64 grad_n, grad_m;
  T* partial;  // ((c, t), m rounded up to nr) of the block's sum
  i64 partial_row;
};

// Gradient of the input, out[n, c] = activation(sum over m, t of weight[m, c, t] grad[n, m] +
// bias), added up in a padded copy: `image` describes the copies only, of all output rows.
template <class T>
struct ConvScatter {
  ConvImage<T> image;
  i64 m, height, width;  // of grad
  i64 images;            // of a block: 1, or as many as a vector has lanes
  const T* grad;         // pixels of an image densely
  i64 grad_n, grad_m;
  const T* weight;  // panels of conv_pack with (c, t) for m, m for K
  i64 panel, kc;
  const T* bias;  // (c,) or null
  T* out;         // channels of an image densely
  i64 out_n;
  Activation activation;
};

// A sum over units: `images` whole images, or one image's rows, `rows` at a time.
struct ConvSum {
  i64 images, rows;  // of a unit
  i64 unit0, unit1;  // units run through the rows of an image, then through images
  i64 count;         // images in all
  i64 c0, c1;        // channels
};

}  // namespace vectile
