// Sweeps of the families that multiply matrices: gemm, gemm_s8, conv, attention, recurrent.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "ops/attention.h"
#include "ops/cast.h"
#include "ops/conv.h"
#include "ops/gemm.h"
#include "ops/gemm_f8.h"
#include "ops/gemm_s4.h"
#include "ops/gemm_s8.h"
#include "ops/recurrent.h"
#include "sweep.h"

namespace vectile::sweep {

constexpr Activation kActivations[] = {Activation::none,      Activation::relu, Activation::gelu,
                                       Activation::gelu_tanh, Activation::silu, Activation::tanh,
                                       Activation::sigmoid};

namespace {

// Half types: the product of the float32 they widen to, rounded once, in the same bits; where a
// tier multiplies bfloat16 itself, sweep_gemm_bf16 has the bound.
void sweep_half(i64 m, i64 n, i64 k, Layout layout, DType type) {
  Inputs in(DType::f32);
  const auto laid_out = [&](const TensorView& x) {
    constexpr int order[] = {1, 0};
    return layout == Layout::rows ? x : permuted(x, order);
  };
  const auto halved = [&](i64 rows, i64 columns) -> const TensorView& {
    const bool as_is = layout == Layout::rows;
    return in.keep(cast_to(in.uniform(as_is ? Shape(rows, columns) : Shape(columns, rows)), type));
  };
  const TensorView &a = halved(m, k), &b = halved(k, n);
  const TensorView &wide_a = in.keep(cast_to(a, DType::f32)),
                   &wide_b = in.keep(cast_to(b, DType::f32));
  each_tier([&](const std::string& tier) {
    if (ops::unit_16(kernels(), ops::Compute::standard, type)) return;
    const Array got = ops::matmul(laid_out(a), laid_out(b));
    const Array want = cast_to(ops::matmul(laid_out(wide_a), laid_out(wide_b)), type);
    EXPECT_EQ(std::memcmp(got.data, want.data, static_cast<std::size_t>(2 * m * n)), 0)
        << tier << ' ' << m << 'x' << n << text('x', k, ' ', type);
  });
}

}  // namespace

void sweep_gemm() {
  constexpr i64 kShapes[][3] = {
      {0, 3, 4},   {3, 4, 0},   {1, 1, 1},     {1, 17, 300}, {5, 1, 40}, {2, 37, 513},  {7, 13, 31},
      {8, 12, 64}, {9, 25, 17}, {15, 33, 257}, {29, 64, 12}, {3, 70, 5}, {37, 100, 259}};
  for (const auto& [m, n, k] : kShapes)
    for (const Layout a : kLayouts)
      for (const Layout b : kLayouts)
        expect_products(text("matmul ", m, 'x', n, 'x', k, " layouts ", int(a), int(b)), double(k),
                        [=, m = m, n = n, k = k](Inputs& in, Outputs& out) {
                          const TensorView x = in.matrix(m, k, a), y = in.matrix(k, n, b);
                          out.add(ops::matmul(x, y));
                        });
  for (const auto& [m, n, k] : kShapes)
    for (const Layout layout : {Layout::rows, Layout::columns})
      for (const DType type : {DType::f16, DType::bf16}) sweep_half(m, n, k, layout, type);
  expect_products("matmul batched", 7, [](Inputs& in, Outputs& out) {
    const TensorView a = in.uniform(Shape(3, 1, 5, 7)), b = in.uniform(Shape(4, 7, 6));
    out.add(ops::matmul(a, b));
  });
  constexpr i64 kLinear[][3] = {{1, 23, 19}, {6, 8, 300}, {21, 50, 33}};
  for (const auto& [m, n, k] : kLinear) {
    const auto bias_and_packed = [=, m = m, n = n, k = k](Activation activation) {
      return [=](Inputs& in, Outputs& out) {
        const TensorView x = in.uniform(Shape(m, k)), w = in.uniform(Shape(n, k), -0.2, 0.2),
                         bias = in.uniform(Shape(n));
        out.add(ops::linear(x, w, &bias, activation));
        out.add(ops::linear(x, ops::PackedMatrix(w), &bias, activation));
      };
    };
    expect_products(text("linear ", m, 'x', n, 'x', k), double(k),
                    bias_and_packed(Activation::none));
    // |A| |B| <= k / 5, and no activation rises faster than 1.2.
    for (const Activation activation : kActivations)
      expect_close(text("linear ", m, 'x', n, 'x', k, " activation ", int(activation)),
                   16 + 0.3 * double(k * k), bias_and_packed(activation));
  }
}

// ---- gemm_f16, gemm_bf16 -----------------------------------------------------------------------

namespace {

// float32 operands rounded by the unit; on tiers without it the bound is easily kept.
void sweep_16(ops::Compute compute, double relative) {
  constexpr i64 kShapes[][3] = {{1, 1, 1},    {3, 17, 300},  {14, 64, 32},   {15, 65, 33},
                                {32, 32, 64}, {33, 70, 127}, {130, 40, 700}, {3, 4, 0}};
  ops::set_use_16(ops::Use16::always);
  for (const auto& [m, n, k] : kShapes)
    for (const Layout a : kLayouts)
      for (const Layout b : kLayouts)
        // |A| |B| <= k for inputs of at most 1.
        expect_within(
            text("matmul of 16 bits ", m, 'x', n, 'x', k), relative * double(k),
            [=, m = m, n = n, k = k](Inputs& in, Outputs& out) {
              const TensorView x = in.matrix(m, k, a), y = in.matrix(k, n, b);
              const bool exact = in.dtype() == DType::f64;
              out.add(ops::matmul(x, y, nullptr, exact ? ops::Compute::standard : compute));
            });
  ops::set_use_16(ops::Use16::faster);
}

}  // namespace

void sweep_gemm_f16() { sweep_16(ops::Compute::f16, 0.017 + 0x1p-14); }
void sweep_gemm_bf16() { sweep_16(ops::Compute::bf16, 0.0079 + 0x1p-13); }

// ---- gemm_s8 -----------------------------------------------------------------------------------

namespace {

i64 integer(const TensorView& x, i64 i, i64 j) {
  const i64 at = i * x.strides[0] + j * x.strides[1];
  return x.dtype == DType::i8 ? x.as<std::int8_t>()[at] : x.as<std::uint8_t>()[at];
}

void sweep_integers(i64 m, i64 n, i64 k, DType a_type, DType b_type, Layout a_layout,
                    Layout b_layout, bool zeros) {
  Inputs in(DType::f32);
  const TensorView a = in.matrix_of_bytes(a_type, m, k, a_layout);
  const TensorView b = in.matrix_of_bytes(b_type, k, n, b_layout);
  const TensorView az = in.integers(a_type, Shape(m), 0, 100),
                   bz = in.integers(b_type, Shape(n), 0, 100);
  each_tier([&](const std::string& tier) {
    const Array c = ops::matmul_integer(a, b, zeros ? &az : nullptr, zeros ? &bz : nullptr);
    for (i64 i = 0; i < m; ++i)
      for (i64 j = 0; j < n; ++j) {
        i64 sum = 0;
        for (i64 s = 0; s < k; ++s)
          sum += (integer(a, i, s) - (zeros ? i64(element(az, i)) : 0)) *
                 (integer(b, s, j) - (zeros ? i64(element(bz, j)) : 0));
        ASSERT_EQ(c.as<std::int32_t>()[i * n + j], sum)
            << tier << ' ' << m << 'x' << n << 'x' << k << " at " << i << ", " << j << ", "
            << text(a_type, ' ', b_type) << (zeros ? " zero points" : "");
      }
  });
}

}  // namespace

void sweep_gemm_s8() {
  constexpr i64 kShapes[][3] = {{1, 1, 1},   {1, 40, 7},  {3, 5, 0},     {7, 11, 33},
                                {8, 12, 64}, {9, 13, 65}, {17, 50, 130}, {5, 100, 259}};
  constexpr DType kBytes[] = {DType::i8, DType::u8};
  for (const auto& [m, n, k] : kShapes)
    for (const DType a : kBytes)
      for (const DType b : kBytes)
        for (const Layout layout : kLayouts)
          for (const bool zeros : {false, true})
            sweep_integers(m, n, k, a, b, layout, layout, zeros);
  for (const DType type : kBytes)
    expect_equal(text("qlinear_matmul to ", type), [=](Inputs& in, Outputs& out) {
      const TensorView a = in.matrix_of_bytes(DType::u8, 9, 70, Layout::rows);
      const TensorView b = in.matrix_of_bytes(DType::i8, 70, 21, Layout::rows);
      const TensorView a_scale = in.uniform(Shape(9), 0.001, 0.01);
      const TensorView b_scale = in.uniform(Shape(21), 0.001, 0.01);
      const TensorView y_scale = in.uniform(Shape(), 0.01, 0.02);
      const TensorView a_zero = in.integers(DType::u8, Shape(9), 100, 150);
      const TensorView b_zero = in.integers(DType::i8, Shape(21), 0, 0);
      const TensorView y_zero = in.integers(type, Shape(), 10, 20);
      out.add(ops::qlinear_matmul(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero));
    });
  // In float32 a few of the k values of x and w may round to the next of their steps, of 2 / 255
  // and 0.2 / 127: each moves y by at most 0.0016.
  constexpr i64 kLinear[][3] = {{1, 30, 64}, {9, 25, 131}};
  for (const auto& [m, n, k] : kLinear)
    for (const Activation activation : kActivations)
      expect_within(text("linear quantised ", m, 'x', n, 'x', k, " activation ", int(activation)),
                    0.0064, [=, m = m, n = n, k = k](Inputs& in, Outputs& out) {
                      const TensorView x = in.uniform(Shape(m, k)), bias = in.uniform(Shape(n)),
                                       w = in.uniform(Shape(n, k), -0.2, 0.2);
                      const auto q = ops::quantize_weight(w);
                      out.add(ops::linear(x, *q, &bias, activation));
                      out.add(q->dequantize());
                    });
}

void sweep_gemm_s4() {
  // As above for x alone, in steps of 2 / 255 or less beside weights of 0.16 or less.
  constexpr i64 kLinear[][4] = {{1, 30, 64, 32}, {9, 25, 131, 64}, {40, 70, 260, 128}};
  for (const auto& [m, n, k, group] : kLinear)
    for (const bool symmetric : {true, false})
      expect_within(text("linear 4 bits ", m, 'x', n, 'x', k, " by ", group), 0.0064,
                    [=, m = m, n = n, k = k, group = group](Inputs& in, Outputs& out) {
                      const TensorView x = in.uniform(Shape(m, k)), bias = in.uniform(Shape(n));
                      const i64 groups = ceil_div(k, group);
                      const TensorView scales = in.uniform(Shape(n, groups), 0.005, 0.01);
                      const TensorView values = symmetric
                                                    ? in.integers(DType::i8, Shape(n, k), -8, 7)
                                                    : in.integers(DType::u8, Shape(n, k), 0, 15);
                      const TensorView zeros = in.integers(DType::u8, Shape(n, groups), 0, 15);
                      const ops::Int4Matrix w(values, scales, symmetric ? nullptr : &zeros, group);
                      out.add(ops::linear(x, w, &bias, Activation::none));
                      out.add(w.dequantize());
                    });
}

void sweep_gemm_f8() {
  constexpr i64 kLinear[][3] = {{1, 30, 64}, {9, 25, 131}, {40, 70, 600}};
  for (const auto& [m, n, k] : kLinear)
    for (const DType format : {DType::f8e4m3, DType::f8e5m2})
      expect_products(text("linear ", format, ' ', m, 'x', n, 'x', k), double(k + 2),
                      [=, m = m, n = n, k = k](Inputs& in, Outputs& out) {
                        const TensorView x = in.uniform(Shape(m, k)), bias = in.uniform(Shape(n)),
                                         scales = in.uniform(Shape(n), 0.1, 0.2);
                        TensorView values = in.integers(DType::u8, Shape(n, k), 0, 0x3c);
                        values.dtype = format;
                        const ops::Float8Matrix w(values, scales);
                        out.add(ops::linear(x, w, &bias, Activation::none));
                      });
}

// ---- conv --------------------------------------------------------------------------------------

void sweep_conv() {
  constexpr struct {
    i64 n, c, m, height, width, kernel, stride, pad, dilation, groups;
  } kCases[] = {{1, 1, 1, 1, 1, 1, 1, 0, 1, 1},   {2, 3, 5, 9, 11, 1, 1, 0, 1, 1},
                {2, 3, 7, 8, 13, 3, 1, 1, 1, 1},  {3, 5, 17, 12, 12, 3, 2, 1, 1, 1},
                {1, 4, 6, 10, 9, 3, 1, 2, 2, 2},  {2, 1, 9, 14, 14, 5, 1, 0, 1, 1},
                {2, 6, 6, 9, 21, 3, 1, 1, 1, 6},  {1, 5, 10, 11, 7, 5, 1, 2, 1, 5},
                {1, 3, 3, 12, 19, 3, 2, 1, 1, 3}, {5, 8, 13, 4, 4, 4, 2, 1, 1, 1},
                {1, 20, 30, 6, 6, 3, 1, 1, 1, 1}, {2, 2, 3, 17, 5, 3, 3, 0, 1, 1}};
  for (const auto& v : kCases) {
    const ops::ConvSettings settings = {
        {v.stride, v.stride}, {v.pad, v.pad}, {v.pad, v.pad}, {v.dilation, v.dilation}, v.groups};
    const auto size = [&](i64 in) {
      return (in + 2 * v.pad - v.dilation * (v.kernel - 1) - 1) / v.stride + 1;
    };
    const Shape x(v.n, v.c, v.height, v.width), y(v.n, v.m, size(v.height), size(v.width));
    const Shape w(v.m, v.c / v.groups, v.kernel, v.kernel);
    const double taps = double(w.elements() / v.m), pixels = double(y.elements() / v.m);
    const std::string what =
        text("conv ", x, " by ", w, " stride ", v.stride, " dilation ", v.dilation);
    const auto forward = [=](Activation activation) {
      return [=](Inputs& in, Outputs& out) {
        const TensorView a = in.uniform(x), b = in.uniform(w), bias = in.uniform(Shape(w[0]));
        out.add(ops::conv("conv2d", 2, a, b, nullptr, settings, activation));
        out.add(ops::conv("conv2d", 2, a, b, &bias, settings, activation));
      };
    };
    expect_products(what, taps + 1, forward(Activation::none));
    expect_close(what + " gelu", 16 + 1.2 * taps * taps, forward(Activation::gelu));
    expect_products(
        what + " input grad", double(v.m) * double(v.kernel * v.kernel),
        [=](Inputs& in, Outputs& out) {
          const TensorView g = in.uniform(y), b = in.uniform(w), bias = in.uniform(Shape(x[1]));
          for (const TensorView* with : {static_cast<const TensorView*>(nullptr), &bias})
            out.add(ops::conv_input_grad("conv2d", 2, g, b, with, x, settings, Activation::none));
        });
    expect_products(what + " weight grad", pixels, [=](Inputs& in, Outputs& out) {
      const TensorView g = in.uniform(y), a = in.uniform(x);
      out.add(ops::conv_weight_grad("conv2d", 2, g, a, w, settings));
    });
  }
  expect_products("conv1d", 15, [](Inputs& in, Outputs& out) {
    const TensorView a = in.uniform(Shape(2, 3, 37)), b = in.uniform(Shape(4, 3, 5));
    out.add(ops::conv("conv1d", 1, a, b, nullptr, {{1, 2}, {0, 2}, {0, 1}, {1, 1}, 1},
                      Activation::none));
  });
}

// ---- attention ---------------------------------------------------------------------------------

void sweep_attention() {
  constexpr struct {
    i64 heads, kv_heads, lq, lk, d, dv;
  } kCases[] = {{1, 1, 1, 1, 1, 1},     {2, 1, 5, 7, 8, 3},     {4, 2, 13, 70, 20, 33},
                {1, 1, 66, 65, 64, 64}, {2, 2, 1, 131, 12, 16}, {1, 1, 30, 3, 300, 5}};
  for (const auto& v : kCases)
    for (const bool causal : {false, true})
      for (const int mask : {0, 1, 2, 3, 4, 5}) {  // none, added, seen; window, blocks, terms
        const std::string what = text("attention lq", v.lq, " lk", v.lk, " d", v.d,
                                      causal ? " causal" : "", " mask ", mask);
        // The scores are sums of d products below 1 / sqrt(d); |out| and the weights' sum are at
        // most 1.
        const double bound = 32 + 4 * double(v.d) * std::sqrt(double(v.d));
        expect_close(what, bound, [=](Inputs& in, Outputs& out) {
          const TensorView q = in.uniform(Shape(v.heads, v.lq, v.d)),
                           k = in.uniform(Shape(v.kv_heads, v.lk, v.d)),
                           x = in.uniform(Shape(v.kv_heads, v.lk, v.dv)),
                           added = in.uniform(Shape(v.lq, v.lk)),
                           seen = in.integers(DType::boolean, Shape(v.lq, v.lk), 0, 1);
          const TensorView* m = mask == 1 ? &added : mask == 2 ? &seen : nullptr;
          const TensorView blocks = in.integers(DType::boolean,
                                                Shape((v.lq + 7) / 8, (v.lk + 39) / 40), 0, 1),
                           sinks = in.uniform(Shape(v.heads)),
                           slopes = in.uniform(Shape(v.heads), -0.01, 0.01);
          ops::AttentionOptions options;
          if (mask == 3) options.left = 5, options.right = 20;
          if (mask == 4)
            options.block_mask = &blocks, options.block_rows = 8, options.block_columns = 40;
          if (mask == 5)
            options.softcap = 2, options.sinks = &sinks, options.alibi_slopes = &slopes;
          options.is_causal = causal, options.return_lse = true, options.return_weights = true;
          ops::AttentionResult r = ops::scaled_dot_product_attention(q, k, x, m, options);
          const TensorView g = in.uniform(r.out.shape);
          ops::AttentionGradients d =
              ops::scaled_dot_product_attention_backward(g, q, k, x, r.out, r.lse, m, options);
          for (Array* a : {&r.out, &r.lse, &r.weights, &d.dq, &d.dk, &d.dv}) out.add(std::move(*a));
          if (d.dsinks.data) out.add(std::move(d.dsinks));
        });
      }
}

// ---- recurrent ---------------------------------------------------------------------------------

void sweep_recurrent() {
  constexpr CellKind kCells[] = {CellKind::rnn_tanh, CellKind::rnn_relu, CellKind::lstm,
                                 CellKind::gru};
  constexpr i64 kSizes[][4] = {
      {1, 1, 1, 1}, {4, 1, 5, 9}, {3, 2, 3, 33}, {3, 7, 8, 13}, {2, 19, 4, 50}};
  for (const CellKind cell : kCells)
    for (const auto& [steps, batch, inputs, hidden] : kSizes)
      for (const bool reverse : {false, true}) {
        const i64 gates = cell_shape(cell).gates * hidden;
        // Each step adds (inputs + hidden) roundings of numbers below 1 and a few of its functions;
        // weights this small do not make earlier ones grow.
        const double bound = 16. * double(steps) * double(inputs + hidden + 8);
        expect_close(
            text("recurrent ", int(cell), " T", steps, " B", batch, " I", inputs, " H", hidden),
            bound,
            [=, steps = steps, batch = batch, inputs = inputs, hidden = hidden](Inputs& in,
                                                                                Outputs& out) {
              const double scale = 1 / std::sqrt(double(hidden));
              const TensorView x = in.uniform(Shape(steps, batch, inputs)),
                               h0 = in.uniform(Shape(batch, hidden)),
                               c0 = in.uniform(Shape(batch, hidden)),
                               w_ih = in.uniform(Shape(gates, inputs), -scale, scale),
                               w_hh = in.uniform(Shape(gates, hidden), -scale, scale),
                               b_ih = in.uniform(Shape(gates)), b_hh = in.uniform(Shape(gates)),
                               lengths = in.integers(DType::i64, Shape(batch), 0, steps);
              const ops::RecurrentArguments a{
                  cell,  x,     &h0,     cell == CellKind::lstm ? &c0 : nullptr, w_ih, w_hh,
                  &b_ih, &b_hh, reverse, batch > 2 ? &lengths : nullptr};
              ops::RecurrentStates f = ops::recurrent(a, true);
              const TensorView grad = in.uniform(f.states.shape);
              ops::RecurrentGradients g =
                  ops::recurrent_backward(a, grad, f.states, f.gates.data ? &f.gates : nullptr,
                                          f.c.data ? &f.c : nullptr, true, true);
              out.add(std::move(f.states));
              for (Array* d : {&g.dx, &g.dh0, &g.dc0, &g.dw_ih, &g.dw_hh, &g.db_ih, &g.db_hh})
                out.add(std::move(*d));
            });
      }
}

}  // namespace vectile::sweep
