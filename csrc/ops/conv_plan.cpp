#include "ops/conv_plan.h"

#include <algorithm>

#include "ops/matmul_args.h"

namespace vectile::ops {

Shape ConvGeometry::shape(i64 channels, const i64* size) const {
  Shape s;
  if (batched) s.push(n);
  s.push(channels);
  for (int i = 2 - axes; i < 2; ++i) s.push(size[i]);
  return s;
}

Shape ConvGeometry::weight() const {
  Shape s(m, group_c());
  for (int i = 2 - axes; i < 2; ++i) s.push(kernel[i]);
  return s;
}

ConvGeometry conv_geometry(const char* op, int axes, const Shape& x, const Shape& weight,
                           const ConvSettings& settings, const char* const (&names)[2]) {
  constexpr i64 kMost = i64{1} << 40;  // sums of a few products of these do not overflow
  check(x.ndim == axes + 2 || x.ndim == axes + 1, op, names[0], "ndim",
        text(axes + 2, ", or ", axes + 1, " without a batch"), x.ndim);
  check(weight.ndim == axes + 2, op, names[1], "ndim", axes + 2, weight.ndim);
  ConvGeometry g{};
  g.batched = x.ndim == axes + 2;
  g.axes = axes;
  g.n = g.batched ? x[0] : 1;
  g.c = x[-axes - 1];
  g.m = weight[0];
  g.groups = settings.groups;
  check(g.groups > 0, op, "groups", "value", "at least 1", g.groups);
  check(g.c % g.groups == 0, op, names[0], "channels", text("a multiple of groups = ", g.groups),
        g.c);
  check(g.m % g.groups == 0, op, names[1], "shape", text("a multiple of groups = ", g.groups),
        weight);
  check(weight[1] == g.group_c(), op, names[1], "shape",
        text("(*, ", g.group_c(), ", ...) for ", g.c, " channels"), weight);
  for (int i = 0; i < 2; ++i) {
    const bool unused = i < 2 - axes;
    const int axis = i - 2;
    g.in[i] = unused ? 1 : x[axis];
    g.kernel[i] = unused ? 1 : weight[axis];
    g.stride[i] = unused ? 1 : settings.stride[i];
    g.dilation[i] = unused ? 1 : settings.dilation[i];
    g.pad[i] = unused ? 0 : settings.pad_begin[i];
    const i64 pad_end = unused ? 0 : settings.pad_end[i];
    check(g.kernel[i] > 0, op, names[1], "shape", "a kernel of at least 1", weight);
    check(g.in[i] < kMost, op, names[0], "size", "less than 2**40", g.in[i]);
    check(g.kernel[i] < 1 << 20, op, names[1], "size", "less than 2**20", g.kernel[i]);
    const auto in_range = [&](const char* name, i64 value, i64 least) {
      check(value >= least && value < kMost, op, name, "value", text("at least ", least), value);
    };
    in_range("stride", g.stride[i], 1);
    in_range("padding", g.pad[i], 0);
    in_range("padding", pad_end, -kMost);
    in_range("dilation", g.dilation[i], 1);
    const i64 extent = g.dilation[i] * (g.kernel[i] - 1) + 1, padded = g.in[i] + g.pad[i] + pad_end;
    check(padded >= extent, op, names[0], "size",
          text("at least ", extent, " with padding, the extent of the kernel"), padded);
    g.out[i] = (padded - extent) / g.stride[i] + 1;
  }
  return g;
}

TensorView images_of(const TensorView& x, int axes) {
  TensorView v = x;
  if (v.ndim() == axes + 1) v = with_axis(v, 0);
  return axes == 1 ? with_axis(v, 2) : v;
}

ConvPattern::Line::Line(const ConvReach& r)
    : size(r.size), step(r.step), origin(0), reach(0), outputs(r.outputs) {
  if (!r.at.empty()) origin = *std::min_element(r.at.begin(), r.at.end());
  for (const i64 at : r.at) {
    const i64 remainder = (at - origin) % step;
    const auto found = std::find(phases.begin(), phases.end(), remainder);
    distance.push_back(at - origin);
    phase.push_back(found - phases.begin());
    if (found == phases.end()) phases.push_back(remainder);
    index.push_back((at - origin) / step);
    reach = std::max(reach, index.back());
  }
}

ConvPattern::ConvPattern(const ConvReach& rows, const ConvReach& columns)
    : rows_(rows), columns_(columns) {
  const auto inside = [](const Line& line) {
    if (line.distance.empty() || line.outputs == 0) return true;
    const i64 last = *std::max_element(line.distance.begin(), line.distance.end());
    return line.origin >= 0 && line.origin + (line.outputs - 1) * line.step + last < line.size;
  };
  in_place_ = (columns.step == 1 || columns.outputs <= 1) && inside(rows_) && inside(columns_);
}

bool ConvPattern::leaves_at_edges(i64 lanes) const {
  const i64 last = columns_.outputs > 0 ? (columns_.outputs - 1) / lanes * lanes : 0;
  const auto whole = [&](i64 distance) {  // but for those vectors
    const i64 at = columns_.origin + distance;
    return at + lanes >= 0 && (last <= lanes || at + last <= columns_.size);
  };
  return columns_.step == 1 && columns_.distance.size() <= kMaxTapColumns &&
         std::all_of(columns_.distance.begin(), columns_.distance.end(), whole);
}

i64 ConvPattern::copy_elements(i64 block_rows) const {
  const i64 width = static_cast<i64>(columns_.phases.size()) * (columns_.outputs + columns_.reach);
  return static_cast<i64>(rows_.phases.size()) * (block_rows + rows_.reach) * width;
}

template <class T>
ConvImage<T> ConvPattern::image(const T* data, const i64* strides, i64 channels, i64 block_rows,
                                bool copied) {
  ConvImage<T> image{};
  image.data = data;
  image.n_stride = strides[0], image.c_stride = strides[1], image.h_stride = strides[2];
  image.channels = channels;
  image.rows = rows_.axis(), image.columns = columns_.axis();
  image.copied = copied;
  image.block_rows = block_rows;
  const i64 length = columns_.outputs + columns_.reach;
  const i64 width = static_cast<i64>(columns_.phases.size()) * length;
  if (!copied) {
    image.data += rows_.origin * strides[2] + columns_.origin;
    image.n_pitch = strides[0], image.c_pitch = strides[1];
    image.y_pitch = rows_.step * strides[2];
  } else {
    image.y_pitch = width;
    image.c_pitch = copy_elements(block_rows);
    image.n_pitch = channels * image.c_pitch;
  }
  taps_.clear();
  for (size_t i = 0; i < rows_.distance.size(); ++i)
    for (size_t j = 0; j < columns_.distance.size(); ++j)
      taps_.push_back(!copied
                          ? rows_.distance[i] * strides[2] + columns_.distance[j]
                          : (rows_.phase[i] * (block_rows + rows_.reach) + rows_.index[i]) * width +
                                columns_.phase[j] * length + columns_.index[j]);
  image.tap = taps_.data();
  image.taps = static_cast<i64>(taps_.size());
  return image;
}

template ConvImage<float> ConvPattern::image(const float*, const i64*, i64, i64, bool);
template ConvImage<double> ConvPattern::image(const double*, const i64*, i64, i64, bool);

}  // namespace vectile::ops
