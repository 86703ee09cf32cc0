// Shapes of a convolution, checked, and the patterns in which its three kernels read.
#pragma once

#include <vector>

#include "kernels/conv_types.h"
#include "ops/conv.h"

namespace vectile::ops {

// Sizes that a convolution, its input gradient and its weight gradient share; one spatial axis is
// two of which the first has size 1.
struct ConvGeometry {
  bool batched;
  int axes;
  i64 n, c, m, groups;  // images, input channels, output channels
  i64 in[2], out[2], kernel[2], stride[2], pad[2], dilation[2];

  i64 taps() const { return kernel[0] * kernel[1]; }
  i64 group_c() const { return c / groups; }
  i64 group_m() const { return m / groups; }
  Shape input() const { return shape(c, in); }
  Shape output() const { return shape(m, out); }
  Shape weight() const;

 private:
  Shape shape(i64 channels, const i64* size) const;
};

// Throws unless shapes and settings belong together. `names`: of x and weight in errors.
ConvGeometry conv_geometry(const char* op, int axes, const Shape& x, const Shape& weight,
                           const ConvSettings& settings, const char* const (&names)[2]);

// Four-dimensional view (N, C, H, W) of a batch.
TensorView images_of(const TensorView& x, int axes);

// One axis of a pattern: `outputs` outputs, of which i reads, for each tap, source position
// at[tap] + i * step.
struct ConvReach {
  std::vector<i64> at;
  i64 size, step, outputs;
};

// Where the taps of a pattern lie, with or without a padded copy.
class ConvPattern {
 public:
  ConvPattern(const ConvReach& rows, const ConvReach& columns);
  bool in_place() const { return in_place_; }  // no tap leaves the image and columns are adjacent
  // Whether columns are adjacent, those of taps few and, of a row's vectors of outputs, taps leave
  // the image in the first and the last one only.
  bool leaves_at_edges(i64 lanes) const;
  i64 copy_elements(i64 block_rows) const;  // per channel
  // The pattern over images of dense rows (n, c, h, w) of `channels`, in place where it is
  // in_place(), or copied in blocks of block_rows output rows. Points into this object.
  template <class T>
  ConvImage<T> image(const T* data, const i64* strides, i64 channels, i64 block_rows, bool copied);

 private:
  struct Line {  // one axis
    i64 size, step, origin, reach, outputs;
    std::vector<i64> phases;
    std::vector<i64> distance, phase, index;  // of each tap
    explicit Line(const ConvReach& reach);
    ConvAxis axis() const {
      return {size,
              step,
              origin,
              reach,
              static_cast<i64>(phases.size()),
              static_cast<i64>(distance.size()),
              phases.data(),
              distance.data()};
    }
  };
  Line rows_, columns_;
  bool in_place_;
  std::vector<i64> taps_;
};

}  // namespace vectile::ops
