#include "ops/conv.h"

#include <algorithm>

#include "ops/conv_plan.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

constexpr double kTaskWork = 1 << 22;  // multiply-adds worth a task of their own
constexpr double kMaxTasks = 12;
constexpr i64 kCopyElements = 1 << 17;  // of a block's padded images, beside the weights in L2
constexpr i64 kSumPixels = 1 << 10;     // of a unit of the weight gradient's sum

template <class T>
GemmTiles tiles_of(const Kernels& kernels) {
  GemmTiles tiles;
  kernels.of<T>().gemm_tiles(&tiles);
  return tiles;
}

i64 wanted_tasks(double work) {
  return static_cast<i64>(std::clamp(work / kTaskWork, 1., kMaxTasks));
}

// Images in rows whose columns are adjacent, as the kernels read them: x itself or a copy.
Array dense_columns(const TensorView& x) {
  return x.shape.back() == 1 || x.stride(-1) == 1 ? Array(x) : contiguous(x);
}

// Outputs of one pattern: data at its first pixel, strides of image, channel, row and column.
template <class T>
struct Target {
  T* data;
  i64 n_stride, m_stride, y_stride, x_stride, height, width;
};

// Weights of all groups, group_stride apart; bias of all groups or null.
template <class T>
struct Weights {
  ConvWeight<T> first;
  i64 group_stride;
};

struct Partition {
  i64 images, rows, panels;  // of a block
  bool joined;
};

// Blocks whose copies stay in the L2 cache and whose strips are full, of at least 256 pixels where
// there are as many, and enough of them to share out.
template <class T>
Partition partition(const GemmTiles& t, const ConvPattern& pattern, const Target<T>& out, i64 n,
                    i64 groups, i64 channels, i64 m, double work) {
  Partition p{};
  p.joined = out.x_stride != 1 || out.y_stride != out.width;
  const i64 pixels = out.height * out.width;
  const auto large = [&](i64 rows) {
    return (!pattern.in_place() && pattern.copy_elements(rows) * channels > kCopyElements) ||
           (p.joined && rows * out.width * m > 2 * kCopyElements);
  };
  const auto even = [](i64 whole, i64 part) { return ceil_div(whole, ceil_div(whole, part)); };
  p.rows = out.height;
  while (p.rows > 1 && p.rows * out.width > 256 && large(p.rows)) p.rows = ceil_div(p.rows, 2);
  p.images = 1;
  if (p.rows == out.height && pixels < 1024) {
    const auto waste = [&](i64 images) {
      return double(round_up(images * pixels, t.lanes)) / double(images * pixels);
    };
    const i64 most = std::min(n, std::max<i64>(1, 1024 / pixels));
    i64 best = std::min(most, ceil_div(i64{256}, pixels));
    for (i64 images = best; images <= most && waste(best) > 1.02; ++images)
      if (waste(images) < waste(best)) best = images;
    p.images = even(n, best);
    p.joined = p.joined || p.images > 1;
  }
  const i64 panels = ceil_div(m, t.mr), wanted = wanted_tasks(work);
  p.panels = even(panels, std::max<i64>(1, t.mc / t.mr));
  const auto tasks = [&] {
    return groups * ceil_div(n, p.images) * ceil_div(out.height, p.rows) *
           ceil_div(panels, p.panels);
  };
  while (tasks() < wanted && p.images == 1 && p.rows > 1 && p.rows * out.width > 8 * t.nr)
    p.rows = even(out.height, ceil_div(p.rows, 2));
  while (tasks() < std::min<i64>(wanted, 4) && p.panels > 8)
    p.panels = even(panels, ceil_div(p.panels, 2));
  return p;
}

// Too few filters on too few channels for a matrix product.
bool is_depthwise(i64 groups, i64 channels, i64 m) { return groups > 1 && channels == 1 && m <= 4; }

template <class T>
void convolve_depthwise(const Kernels& kernels, ConvPattern& pattern, const TensorView& source,
                        i64 groups, const Weights<T>& weights, const Target<T>& out,
                        Activation activation) {
  const FloatKernels<T>& k = kernels.of<T>();
  const ConvWeight<T>& w = weights.first;
  const i64 n = source.shape[0], size = w.m * w.taps;
  const Buffer<T> dense(groups * size);
  for (i64 i = 0; i < groups * size; ++i)
    dense[i] = w.data[i / size * weights.group_stride + i % size / w.taps * w.m_stride +
                      (w.dense ? i % w.taps : w.tap[i % w.taps])];
  Conv<T> v{};
  v.image = pattern.image(source.as<T>(), source.strides, 1, out.height,
                          !pattern.leaves_at_edges(tiles_of<T>(kernels).lanes));
  v.m = w.m, v.height = out.height, v.width = out.width;
  v.out = out.data, v.out_n = out.n_stride, v.out_m = out.m_stride;
  v.out_y = out.y_stride, v.out_x = out.x_stride;
  v.activation = activation;
  const i64 grain = rows_grain(out.height * out.width * (size + 1));
  parallel_ranges(n * groups, grain, [&](i64 begin, i64 end) {
    i64 elements = 0;
    k.conv_depthwise_workspace(v.image, v.height, v.width, v.m, &elements);
    const Buffer<T> workspace(elements);
    for (i64 i = begin; i < end; ++i) {
      const i64 group = i % groups;
      Conv<T> own = v;
      own.image.data += group * v.image.c_stride;
      own.out += group * w.m * v.out_m;
      k.conv_depthwise(own, dense.get() + group * size, w.bias ? w.bias + group * w.m : nullptr,
                       i / groups, workspace.get());
    }
  });
}

// Panels of all groups, one group after the other.
template <class T>
Buffer<T> pack(const FloatKernels<T>& k, const Weights<T>& weights, i64 groups, const GemmTiles& t,
               i64 kc, i64 panel) {
  const ConvWeight<T>& w = weights.first;
  const i64 panels = ceil_div(w.m, t.mr), depth = w.channels * w.taps + (w.bias ? 1 : 0);
  const i64 group_size = ceil_div(depth, kc) * panels * panel;
  Buffer<T> packed(
      static_cast<i64>(checked_bytes(Shape(groups, group_size, sizeof(T)), DType::u8) / sizeof(T)));
  const i64 grain = std::max<i64>(1, 2 * kGrain / (t.mr * depth));
  parallel_ranges(groups * panels, grain, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      const i64 group = i / panels;
      ConvWeight<T> own = w;
      own.data += group * weights.group_stride;
      if (own.bias) own.bias += group * w.m;
      k.conv_pack(own, i % panels, kc, panel, packed.get() + group * group_size);
    }
  });
  return packed;
}

// out = activation(weights x pattern(source) + bias); source (n, groups * channels, h, w).
template <class T>
void convolve(const Kernels& kernels, ConvPattern& pattern, const TensorView& source, i64 groups,
              Weights<T> weights, const Target<T>& out, Activation activation) {
  const FloatKernels<T>& k = kernels.of<T>();
  const GemmTiles t = tiles_of<T>(kernels);
  ConvWeight<T>& w = weights.first;
  const i64 n = source.shape[0], pixels = out.height * out.width;
  if (n == 0 || groups == 0 || w.m == 0 || pixels == 0) return;
  if (is_depthwise(groups, w.channels, w.m))
    return convolve_depthwise(kernels, pattern, source, groups, weights, out, activation);
  Buffer<T> zeros;
  if (w.channels * w.taps == 0 && !w.bias) {  // something to add up
    zeros = Buffer<T>(groups * w.m);
    std::fill_n(zeros.get(), groups * w.m, T(0));
    w.bias = zeros.get();
  }
  const double work =
      double(n) * double(groups) * double(w.m) * double(pixels) * double(w.channels * w.taps);
  const Partition part = partition(t, pattern, out, n, groups, w.channels, w.m, work);

  Conv<T> v{};
  v.image =
      pattern.image(source.as<T>(), source.strides, w.channels, part.rows, !pattern.in_place());
  v.m = w.m, v.height = out.height, v.width = out.width;
  v.bias = w.bias != nullptr;
  v.kc = ceil_div(v.depth(), ceil_div(v.depth(), t.kc));
  v.panel = round_up(t.mr * v.kc + t.lanes, 16);
  v.out = out.data, v.out_n = out.n_stride, v.out_m = out.m_stride;
  v.out_y = out.y_stride, v.out_x = out.x_stride;
  v.joined = part.joined;
  v.activation = activation;

  const i64 panels = ceil_div(w.m, t.mr);
  const i64 group_size = ceil_div(v.depth(), v.kc) * panels * v.panel;
  const Buffer<T> packed = pack(k, weights, groups, t, v.kc, v.panel);

  const i64 row_blocks = ceil_div(out.height, part.rows), image_blocks = ceil_div(n, part.images);
  const i64 panel_blocks = ceil_div(panels, part.panels);
  const i64 blocks = row_blocks * image_blocks * panel_blocks;
  const auto grouped = static_cast<i64>(
      std::clamp(kGrain * double(groups * blocks) / (work + 1), 1., double(groups * blocks)));
  parallel_ranges(groups * blocks, grouped, [&](i64 begin, i64 end) {
    Buffer<T> workspace;
    i64 size = 0;
    for (i64 i = begin; i < end; ++i) {
      const i64 group = i / blocks, p0 = i % panel_blocks * part.panels;
      const i64 y0 = i / panel_blocks % row_blocks * part.rows;
      const i64 n0 = i % blocks / (panel_blocks * row_blocks) * part.images;
      Conv<T> own = v;
      own.image.data += group * w.channels * v.image.c_stride;
      own.weight = packed.get() + group * group_size;
      own.out += group * w.m * v.out_m;
      const ConvBlock block = {n0, std::min(n, n0 + part.images),
                               y0, std::min(out.height, y0 + part.rows),
                               p0, std::min(panels, p0 + part.panels)};
      i64 need = 0;
      k.conv_workspace(own, block, &need);
      if (need > size) workspace = Buffer<T>(size = need);
      k.conv(own, block, workspace.get());
    }
  });
}

// The convolution's own pattern over its input.
ConvPattern input_pattern(const ConvGeometry& g) {
  ConvReach reach[2];
  for (int i = 0; i < 2; ++i) {
    reach[i] = {{}, g.in[i], g.stride[i], g.out[i]};
    for (i64 k = 0; k < g.kernel[i]; ++k) reach[i].at.push_back(k * g.dilation[i] - g.pad[i]);
  }
  return ConvPattern(reach[0], reach[1]);
}

template <class T>
void forward(const ConvGeometry& g, const TensorView& x, const TensorView& weight, const T* bias,
             Activation activation, T* out) {
  ConvPattern pattern = input_pattern(g);
  const i64 taps = g.taps(), gc = g.group_c(), gm = g.group_m(), pixels = g.out[0] * g.out[1];
  const Weights<T> w = {{weight.as<T>(), gm, gc, taps, gc * taps, taps, nullptr, true, bias},
                        gm * gc * taps};
  convolve<T>(kernels(), pattern, x, g.groups, w,
              {out, g.m * pixels, pixels, g.out[1], 1, g.out[0], g.out[1]}, activation);
}

// Pixels h = r + i * stride of the input receive from taps k with (h + pad - k * dilation)
// divisible by the stride, at output (h + pad - k * dilation) / stride: one pattern per remainder r
// of each axis, reading its outputs in steps of one.
struct Phase {
  ConvReach reach;
  std::vector<i64> taps;
};

std::vector<Phase> phases_of(const ConvGeometry& g, int axis) {
  const i64 stride = g.stride[axis];
  std::vector<Phase> phases;
  for (i64 r = 0; r < std::min(stride, g.in[axis]); ++r) {
    Phase p{{{}, g.out[axis], 1, ceil_div(g.in[axis] - r, stride)}, {}};
    for (i64 k = 0; k < g.kernel[axis]; ++k) {
      const i64 distance = r + g.pad[axis] - k * g.dilation[axis];
      if (distance % stride != 0) continue;
      p.reach.at.push_back(distance / stride);
      p.taps.push_back(k);
    }
    phases.push_back(std::move(p));
  }
  return phases;
}

// Whether the product with the taps' weights, added up afterwards, beats gathering: few rows waste
// the tile, a stride splits the taps into patterns, and a larger input mostly gathers zeros.
bool scatters(const ConvGeometry& g) {
  return g.group_c() < 16 || g.taps() == 1 || g.stride[0] > 1 || g.stride[1] > 1 ||
         g.in[0] * g.in[1] > 2 * g.out[0] * g.out[1];
}

template <class T>
void scatter_input_grad(const ConvGeometry& g, const TensorView& any_grad, const TensorView& weight,
                        const T* bias, Activation activation, T* out) {
  const FloatKernels<T>& k = kernels_of<T>();
  const GemmTiles t = tiles_of<T>(kernels());
  const Array grad = contiguous(any_grad);
  ConvPattern pattern = input_pattern(g);
  const i64 taps = g.taps(), gc = g.group_c(), gm = g.group_m(), rows = gc * taps;
  const i64 strides[4] = {0, 0, 0, 1}, none = 0;
  const Weights<T> w = {{weight.as<T>(), rows, gm, 1, 1, rows, &none, true, nullptr}, gm * rows};
  ConvScatter<T> v{};
  v.image = pattern.image<T>(nullptr, strides, gc, g.out[0], true);
  v.m = gm, v.height = g.out[0], v.width = g.out[1];
  // Narrow images go one to a lane where few lanes stay empty.
  v.images = 1;
  if (v.width < 2 * t.lanes && round_up(g.n, t.lanes) * 4 <= g.n * 5 &&
      gc * pattern.copy_elements(v.height) * t.lanes <= 2 * kCopyElements)
    v.images = t.lanes;
  v.grad_n = grad.strides[0], v.grad_m = grad.strides[1];
  v.kc = ceil_div(gm, ceil_div(gm, t.kc));
  v.panel = round_up(t.mr * v.kc + t.lanes, 16);
  v.out_n = g.c * g.in[0] * g.in[1];
  v.activation = activation;
  const i64 group_size = ceil_div(gm, v.kc) * ceil_div(rows, t.mr) * v.panel;
  const Buffer<T> packed = pack(k, w, g.groups, t, v.kc, v.panel);
  i64 elements = 0;
  k.conv_scatter_workspace(v, &elements);
  const i64 blocks = ceil_div(g.n, v.images);
  const i64 work = gm * rows * v.height * v.width * v.images;
  parallel_ranges(blocks * g.groups, std::max<i64>(1, 8 * kGrain / work), [&](i64 begin, i64 end) {
    const Buffer<T> workspace(elements);
    for (i64 i = begin; i < end; ++i) {
      const i64 group = i % g.groups, n0 = i / g.groups * v.images;
      ConvScatter<T> own = v;
      own.grad = grad.template as<T>() + group * gm * v.grad_m;
      own.weight = packed.get() + group * group_size;
      own.bias = bias ? bias + group * gc : nullptr;
      own.out = out + group * gc * g.in[0] * g.in[1];
      k.conv_scatter(own, n0, std::min(g.n, n0 + v.images), workspace.get());
    }
  });
}

template <class T>
void input_grad(const ConvGeometry& g, const TensorView& grad, const TensorView& weight,
                const T* bias, Activation activation, T* out) {
  const i64 taps = g.taps(), gc = g.group_c(), gm = g.group_m(), pixels = g.in[0] * g.in[1];
  if (g.n == 0 || pixels == 0 || g.c == 0) return;
  if (!is_depthwise(g.groups, gm, gc) && gm > 0 && scatters(g))
    return scatter_input_grad(g, grad, weight, bias, activation, out);
  const std::vector<Phase> rows = phases_of(g, 0), columns = phases_of(g, 1);
  for (size_t i = 0; i < rows.size(); ++i)
    for (size_t j = 0; j < columns.size(); ++j) {
      ConvPattern pattern(rows[i].reach, columns[j].reach);
      std::vector<i64> tap;
      for (const i64 y : rows[i].taps)
        for (const i64 x : columns[j].taps) tap.push_back(y * g.kernel[1] + x);
      const auto count = static_cast<i64>(tap.size());
      const Weights<T> w = {
          {weight.as<T>(), gc, gm, count, taps, gc * taps, tap.data(), count == taps, bias},
          gm * gc * taps};
      const Target<T> target = {out + static_cast<i64>(i) * g.in[1] + static_cast<i64>(j),
                                g.c * pixels,
                                pixels,
                                g.stride[0] * g.in[1],
                                g.stride[1],
                                rows[i].reach.outputs,
                                columns[j].reach.outputs};
      convolve<T>(kernels(), pattern, grad, g.groups, w, target, activation);
    }
}

template <class T>
void weight_grad(const ConvGeometry& g, const TensorView& grad, const TensorView& x, T* out) {
  const FloatKernels<T>& k = kernels_of<T>();
  const GemmTiles t = tiles_of<T>(kernels());
  ConvPattern pattern = input_pattern(g);
  const i64 taps = g.taps(), gc = g.group_c(), gm = g.group_m(), rows = gc * taps;
  const i64 height = g.out[0], width = g.out[1], pixels = height * width;
  if (g.m == 0 || rows == 0) return;
  if (g.n == 0 || pixels == 0) return std::fill_n(out, g.m * rows, T(0)), void();

  if (is_depthwise(g.groups, gc, gm)) {
    ConvWeightGrad<T> v{};
    v.image = pattern.image(x.as<T>(), x.strides, 1, height, !pattern.leaves_at_edges(t.lanes));
    v.m = gm, v.height = height, v.width = width;
    v.grad_n = grad.strides[0], v.grad_m = grad.strides[1];
    parallel_ranges(g.groups, rows_grain(g.n * pixels * gm * taps), [&](i64 begin, i64 end) {
      i64 elements = 0;
      k.conv_depthwise_workspace(v.image, height, width, gm, &elements);
      const Buffer<T> workspace(elements);
      for (i64 group = begin; group < end; ++group) {
        ConvWeightGrad<T> own = v;
        own.image.data += group * x.strides[1];
        own.grad = grad.as<T>() + group * gm * v.grad_m;
        k.conv_depthwise_weight_grad(own, g.n, out + group * gm * taps, workspace.get());
      }
    });
    return;
  }

  // Channels are split first, which sums the same; then the sum itself, into parts added in order.
  const double work = double(g.n) * double(g.m) * double(pixels) * double(rows);
  const i64 wanted = wanted_tasks(work);
  const i64 channels =
      ceil_div(gc, std::clamp<i64>(gc / 64, 1, std::max<i64>(1, wanted / g.groups)));
  const i64 channel_blocks = ceil_div(gc, channels);
  ConvSum sum{};
  sum.count = g.n;
  sum.images = 1, sum.rows = height;
  const auto copy = [&](i64 image_rows) {
    return pattern.in_place() ? 0 : pattern.copy_elements(image_rows) * channels;
  };
  while (sum.rows > 1 && (sum.rows * width > kSumPixels || copy(sum.rows) > kCopyElements))
    sum.rows = ceil_div(sum.rows, 2);
  if (sum.rows == height) {
    sum.images = std::max<i64>(1, kSumPixels / pixels);
    if (copy(height) > 0) sum.images = std::min(sum.images, kCopyElements / copy(height));
    sum.images = ceil_div(g.n, ceil_div(g.n, std::max<i64>(1, sum.images)));
  }
  const i64 wanted_parts = ceil_div(wanted, g.groups * channel_blocks);
  if (sum.images > 1) sum.images = std::min(sum.images, ceil_div(g.n, wanted_parts));
  const i64 units = ceil_div(g.n, sum.images) * ceil_div(height, sum.rows);
  const i64 parts = std::min(units, wanted_parts);

  ConvWeightGrad<T> v{};
  v.image = pattern.image(x.as<T>(), x.strides, gc, sum.rows, !pattern.in_place());
  v.m = gm, v.height = height, v.width = width;
  v.grad_n = grad.strides[0], v.grad_m = grad.strides[1];
  v.partial_row = round_up(gm, t.nr);
  const i64 part_size = rows * v.partial_row;
  const Buffer<T> partial(static_cast<i64>(
      checked_bytes(Shape(g.groups, parts, part_size, sizeof(T)), DType::u8) / sizeof(T)));
  parallel_for(g.groups * parts * channel_blocks, [&](i64 i) {
    const i64 group = i / (parts * channel_blocks), part = i / channel_blocks % parts;
    ConvWeightGrad<T> own = v;
    own.image.data += group * gc * x.strides[1];
    own.grad = grad.as<T>() + group * gm * v.grad_m;
    own.partial = partial.get() + (group * parts + part) * part_size;
    ConvSum block = sum;
    block.unit0 = units * part / parts, block.unit1 = units * (part + 1) / parts;
    block.c0 = i % channel_blocks * channels;
    block.c1 = std::min(gc, block.c0 + channels);
    if (block.c0 >= block.c1) return;
    i64 size = 0;
    k.conv_weight_grad_workspace(own, block, &size);
    k.conv_weight_grad(own, block, Buffer<T>(size).get());
  });
  const i64 grain = round_up(std::max<i64>(1, kGrain / (gm * parts)), t.lanes);
  const i64 chunks = ceil_div(rows, grain);
  parallel_for(g.groups * chunks, [&](i64 i) {
    const i64 group = i / chunks, r0 = i % chunks * grain;
    k.conv_combine(partial.get() + group * parts * part_size, parts, part_size, v.partial_row, r0,
                   std::min(rows, r0 + grain), gm, out + group * gm * rows, rows);
  });
}

Array checked_bias(const char* op, const TensorView* bias, const TensorView& x, i64 channels) {
  if (!bias) return {};
  check_same_dtype(op, "bias", *bias, x);
  check_shape(op, "bias", *bias, Shape(channels));
  return contiguous(*bias);
}

}  // namespace

Array conv(const char* op, int axes, const TensorView& x, const TensorView& weight,
           const TensorView* bias, const ConvSettings& settings, Activation activation) {
  check_floating(op, "x", x);
  if (is_half(x.dtype))
    return in_float32(x.dtype, conv, op, axes, x, weight, bias, settings, activation);
  check_same_dtype(op, "weight", weight, x);
  const ConvGeometry g = conv_geometry(op, axes, x.shape, weight.shape, settings, {"x", "weight"});
  const Array b = checked_bias(op, bias, x, g.m);
  Array out = Array::empty(x.dtype, g.output());
  const Array w = contiguous(weight), in = dense_columns(images_of(x, axes));
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    forward<T>(g, in, w, b.as<T>(), activation, out.as<T>());
  });
  return out;
}

Array conv_input_grad(const char* op, int axes, const TensorView& grad, const TensorView& weight,
                      const TensorView* bias, const Shape& input, const ConvSettings& settings,
                      Activation activation) {
  check_floating(op, "grad", grad);
  if (is_half(grad.dtype))
    return in_float32(grad.dtype, conv_input_grad, op, axes, grad, weight, bias, input, settings,
                      activation);
  check_same_dtype(op, "weight", weight, grad);
  const ConvGeometry g =
      conv_geometry(op, axes, input, weight.shape, settings, {"input", "weight"});
  check_shape(op, "grad", grad, g.output());
  const Array b = checked_bias(op, bias, grad, g.c);
  Array out = Array::empty(grad.dtype, g.input());
  const Array w = contiguous(weight), in = dense_columns(images_of(grad, axes));
  dispatch_float(grad.dtype, [&](auto t) {
    using T = decltype(t);
    input_grad<T>(g, in, w, b.as<T>(), activation, out.as<T>());
  });
  return out;
}

Array conv_weight_grad(const char* op, int axes, const TensorView& grad, const TensorView& x,
                       const Shape& weight, const ConvSettings& settings) {
  check_floating(op, "x", x);
  if (is_half(x.dtype))
    return in_float32(x.dtype, conv_weight_grad, op, axes, grad, x, weight, settings);
  check_same_dtype(op, "grad", grad, x);
  const ConvGeometry g = conv_geometry(op, axes, x.shape, weight, settings, {"x", "weight"});
  check_shape(op, "grad", grad, g.output());
  Array out = Array::empty(x.dtype, g.weight());
  const Array from = contiguous(grad), in = dense_columns(images_of(x, axes));
  const TensorView images = images_of(from, axes);
  dispatch_float(x.dtype, [&](auto t) {
    using T = decltype(t);
    weight_grad<T>(g, images, in, out.as<T>());
  });
  return out;
}

}  // namespace vectile::ops
