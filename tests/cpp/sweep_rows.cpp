// Sweeps of the families that work element by element or row by row.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/cast.h"
#include "ops/embedding.h"
#include "ops/loss.h"
#include "ops/norm.h"
#include "ops/optimizer.h"
#include "ops/pool.h"
#include "ops/quantize.h"
#include "ops/reduce.h"
#include "ops/rotary.h"
#include "ops/softmax.h"
#include "sweep.h"

namespace vectile::sweep {

void sweep_cast() {
  for (const DType type : {DType::f16, DType::bf16, DType::f8e4m3, DType::f8e5m2})
    for (const i64 n : kLengths)
      for (const double top : {1., 1e-4, 1e3})
        expect_equal(text("cast ", n, " up to ", top, " to ", type, " and back"),
                     [=](Inputs& in, Outputs& out) {
                       const Array narrow = ops::cast(in.uniform(Shape(n), -top, top), type);
                       out.add(ops::cast(narrow, DType::f32));
                     });
}

void sweep_reduce() {
  const Shape shapes[] = {Shape(1),        Shape(131),      Shape(9000),  Shape(3, 17),
                          Shape(2, 5, 33), Shape(4, 64, 3), Shape(300, 7)};
  for (const Shape& shape : shapes)
    for (unsigned axes = 1; axes < 1u << shape.ndim; ++axes) {
      const auto run = [=](std::size_t first, std::size_t last) {
        return [=](Inputs& in, Outputs& out) {
          const TensorView x = in.uniform(shape);
          for (std::size_t i = first; i <= last; ++i)
            out.add(ops::reduce(ops::kReductions[i], x, axes, false));
        };
      };
      const std::string what = text(shape, " over ", axes);
      expect_products(text("sum, mean ", what), 62, run(0, 1));  // ops/reduce.h's bound
      expect_equal(text("max, min ", what), run(2, 3));
    }
  for (const i64 n : kLengths)
    for (const i64 at : {i64{0}, n / 2, n - 1})
      expect_equal(text("NaN among ", n), [=](Inputs& in, Outputs& out) {
        const TensorView x = in.uniform(Shape(n));
        x.as<float>()[at] = std::numeric_limits<float>::quiet_NaN();
        Array nan = Array::empty(DType::u8, Shape(2));
        for (int i = 0; i < 2; ++i) {
          const Array y = ops::reduce(ops::kReductions[2 + i], x, 1, false);
          EXPECT_TRUE(std::isnan(y.as<float>()[0]));
          nan.as<std::uint8_t>()[i] = std::isnan(y.as<float>()[0]);
        }
        out.add(std::move(nan));
      });
  expect_close("global_norm", 64, [](Inputs& in, Outputs& out) {
    const TensorView arrays[] = {in.uniform(Shape(1031)), in.uniform(Shape(3, 5)),
                                 in.uniform(Shape(0))};
    out.add(Array::full(in.dtype(), Shape(), ops::global_norm(arrays, 3)));
  });
}

void sweep_softmax() {
  for (const i64 n : kLengths)
    for (const i64 axis : {0, 1})
      expect_close(text("softmax of ", n, " along ", axis), 32, [=](Inputs& in, Outputs& out) {
        const TensorView x = in.uniform(axis ? Shape(5, n) : Shape(n, 5), -4, 4);
        const TensorView g = in.uniform(x.shape);
        const i64 row = axis ? 1 : 5, step = axis ? n : 1;  // of one line, and between lines
        for (i64 i = 0; i < n; ++i) {  // line 0: all masked; line 1: half of it
          const auto set = [&](i64 at) {
            if (in.dtype() == DType::f32)
              x.as<float>()[at] = -std::numeric_limits<float>::infinity();
            else
              x.as<double>()[at] = -std::numeric_limits<double>::infinity();
          };
          set(i * row);
          if (i % 2) set(step + i * row);
        }
        const TensorView& y = in.keep(ops::softmax(x, axis));
        out.add(Array(y));
        out.add(ops::softmax_backward(g, y, axis));
        const TensorView& z = in.keep(ops::log_softmax(x, axis));
        out.add(Array(z));
      });
  for (const i64 n : kLengths)
    expect_close(text("log_softmax_backward of ", n), 64, [=](Inputs& in, Outputs& out) {
      const TensorView x = in.uniform(Shape(5, n), -4, 4), g = in.uniform(x.shape);
      const TensorView& y = in.keep(ops::log_softmax(x, 1));
      out.add(ops::log_softmax_backward(g, y, 1));
    });
}

void sweep_norm() {
  // Rows of n numbers of about 1 with eps 0.1: the statistics carry a few roundings, their
  // gradients' sums over rows and the products with them some more.
  constexpr double bound = 128;
  for (const i64 n : kLengths)
    for (const bool affine : {false, true})
      expect_close(text("layer_norm, rms_norm of ", n), bound, [=](Inputs& in, Outputs& out) {
        const TensorView x = in.uniform(Shape(7, n)), g = in.uniform(x.shape);
        const TensorView w = in.uniform(Shape(n)), b = in.uniform(Shape(n));
        const TensorView *weight = affine ? &w : nullptr, *bias = affine ? &b : nullptr;
        ops::Normalised y = ops::layer_norm(x, weight, bias, 0.1, true);
        ops::NormGradient d = ops::layer_norm_backward(g, x, weight, y.mean, y.rstd);
        ops::Normalised z = ops::rms_norm(x, weight, 0.1, true);
        ops::NormGradient e = ops::rms_norm_backward(g, x, weight, z.rstd);
        for (Array* a : {&y.y, &y.mean, &y.rstd, &d.dx, &d.dweight, &d.dbias, &z.y, &z.rstd, &e.dx,
                         &e.dweight})
          out.add(std::move(*a));
      });
  for (const i64 n : {1, 3, 17, 64, 131})
    for (const bool affine : {false, true}) {
      expect_close(text("group_norm of planes of ", n), bound * 4, [=](Inputs& in, Outputs& out) {
        const TensorView x = in.uniform(Shape(2, 6, n)), g = in.uniform(x.shape);
        const TensorView w = in.uniform(Shape(6)), b = in.uniform(Shape(6));
        const TensorView *weight = affine ? &w : nullptr, *bias = affine ? &b : nullptr;
        ops::Normalised y = ops::group_norm(x, 3, weight, bias, 0.1);
        ops::NormGradient d = ops::group_norm_backward(g, x, 3, weight, y.mean, y.rstd);
        for (Array* a : {&y.y, &y.mean, &y.rstd, &d.dx, &d.dweight, &d.dbias})
          out.add(std::move(*a));
      });
      for (const bool training : {false, true})
        expect_close(
            text("batch_norm of planes of ", n, training ? " training" : ""), bound * 4,
            [=](Inputs& in, Outputs& out) {
              const TensorView x = in.uniform(Shape(3, 5, n)), g = in.uniform(x.shape);
              const TensorView w = in.uniform(Shape(5)), b = in.uniform(Shape(5)),
                               mean = in.uniform(Shape(5)), var = in.uniform(Shape(5), 0.5, 1.5);
              const TensorView *weight = affine ? &w : nullptr, *bias = affine ? &b : nullptr;
              ops::Normalised y = ops::batch_norm(x, &mean, &var, weight, bias, training, 0.1, 0.1);
              ops::NormGradient d =
                  ops::batch_norm_backward(g, x, weight, y.mean, y.rstd, training);
              out.add(Array(mean)), out.add(Array(var));
              for (Array* a : {&y.y, &y.mean, &y.rstd, &d.dx, &d.dweight, &d.dbias})
                out.add(std::move(*a));
            });
    }
}

void sweep_loss() {
  for (const i64 n : kLengths)
    for (const double smoothing : {0., 0.1})
      expect_close(text("cross_entropy of ", n), 64, [=](Inputs& in, Outputs& out) {
        const TensorView x = in.uniform(Shape(6, n), -4, 4);
        const TensorView targets = in.integers(DType::i64, Shape(6), 0, n - 1);
        targets.as<i64>()[2] = -100;
        for (const auto reduction : {ops::LossReduction::none, ops::LossReduction::mean}) {
          ops::CrossEntropyOptions options;
          options.label_smoothing = smoothing, options.reduction = reduction;
          ops::CrossEntropy y = ops::cross_entropy(x, targets, options);
          const TensorView g = in.uniform(y.loss.shape);
          out.add(ops::cross_entropy_backward(g, x, targets, y.lse, options));
          out.add(std::move(y.loss));
          out.add(std::move(y.lse));
        }
      });
}

void sweep_embedding() {
  for (const i64 n : kLengths) {
    expect_equal(text("embedding of ", n), [=](Inputs& in, Outputs& out) {
      const TensorView ids = in.integers(DType::i64, Shape(4, 5), 0, 6),
                       w = in.uniform(Shape(7, n));
      out.add(ops::embedding(ids, w));
    });
    expect_products(text("embedding_backward of ", n), 20, [=](Inputs& in, Outputs& out) {
      const TensorView ids = in.integers(DType::i64, Shape(4, 5), 0, 6),
                       g = in.uniform(Shape(4, 5, n));
      out.add(ops::embedding_backward(g, ids, 9));
    });
  }
}

void sweep_rotary() {
  for (const i64 pairs : kLengths)
    for (const bool interleaved : {false, true})
      expect_close(text("rotary of ", pairs, interleaved ? " interleaved" : ""), 8,
                   [=](Inputs& in, Outputs& out) {
                     const TensorView x = in.uniform(Shape(2, 3, 2 * pairs + 1)),
                                      c = in.uniform(Shape(3, pairs)),
                                      s = in.uniform(Shape(3, pairs));
                     out.add(ops::rotary_embedding(x, c, s, interleaved, false));
                   });
}

void sweep_optimizer() {
  for (const i64 n : kLengths)
    for (const bool variant : {false, true})
      expect_close(text("optimizer steps on ", n), 32, [=](Inputs& in, Outputs& out) {
        const auto list = [&](double low, double high) {
          return ops::TensorList{in.uniform(Shape(n), low, high), in.uniform(Shape(3), low, high)};
        };
        const ops::TensorList p = list(-1, 1), q = list(-1, 1), r = list(-1, 1), g = list(-1, 1),
                              b = list(-1, 1), m = list(-1, 1), v = list(0.1, 1), s = list(0.1, 1),
                              c = list(-1, 1);
        ops::sgd(p, g, &b, {0.1, 0.9, variant ? 0 : 0.2, 0.01, variant});
        ops::AdamOptions adam{0.1};
        adam.step = 3, adam.weight_decay = 0.01, adam.decoupled = variant;
        ops::adam("adam", q, g, m, v, adam);
        ops::rmsprop(r, g, s, variant ? &c : nullptr, {0.1, 0.9, 1e-8, 0.01, variant ? 0.9 : 0});
        ops::scale(c, 0.3);
        for (const auto* arrays : {&p, &q, &r, &b, &m, &v, &s, &c})
          for (const TensorView& a : *arrays) out.add(Array(a));
      });
}

void sweep_quantize() {
  for (const i64 n : kLengths)
    for (const bool per_row : {false, true})
      for (const DType type : {DType::i8, DType::u8})
        expect_equal(text("quantize_linear of ", n, " to ", type), [=](Inputs& in, Outputs& out) {
          const Shape scales = per_row ? Shape(n) : Shape();
          const TensorView x = in.uniform(Shape(3, n), -3, 3),
                           scale = in.uniform(scales, 0.01, 0.1),
                           zero = in.integers(type, scales, 0, 50);
          const i64 axis = 1;
          const TensorView& q =
              in.keep(ops::quantize_linear(x, scale, &zero, per_row ? &axis : nullptr));
          out.add(Array(q));
          out.add(ops::dequantize_linear(q, scale, &zero, per_row ? &axis : nullptr));
          const TensorView words = in.integers(DType::i32, Shape(3, n), -1'000'000, 1'000'000);
          out.add(ops::dequantize_linear(words, scale, nullptr, per_row ? &axis : nullptr));
        });
}

void sweep_pool() {
  constexpr struct {
    i64 kernel, stride, padding, dilation, height, width;
  } kCases[] = {{1, 1, 0, 1, 3, 5},  {2, 2, 0, 1, 8, 18},  {3, 2, 1, 1, 9, 23},
                {3, 1, 1, 1, 7, 33}, {3, 3, 0, 2, 17, 40}, {2, 5, 0, 1, 11, 67},
                {5, 2, 2, 1, 6, 13}};
  for (const auto& v : kCases)
    for (const bool ceil_mode : {false, true}) {
      const auto two = [](i64 x) { return ops::Sizes{x, x}; };
      const ops::Pooling pooling{two(v.kernel), two(v.stride), two(v.padding), two(v.dilation),
                                 ceil_mode};
      const Shape shape(2, 3, v.height, v.width);
      const std::string what = text("pool ", shape, " kernel ", v.kernel, " stride ", v.stride);
      const ops::Sizes size{v.height, v.width};
      expect_equal(what + " max", [=](Inputs& in, Outputs& out) {
        const TensorView x = in.uniform(shape);
        ops::Pooled y = ops::max_pool(x, pooling, true);
        out.add(ops::max_pool(x, pooling, false).y);
        const TensorView g = in.uniform(y.y.shape);
        out.add(ops::max_pool_backward(g, y.index, size));
        out.add(std::move(y.y));
        out.add(std::move(y.index));
      });
      if (v.dilation == 1)
        expect_close(what + " average", 64, [=](Inputs& in, Outputs& out) {
          const TensorView x = in.uniform(shape);
          const ops::Averaging averaging{pooling, false, 0};
          const TensorView& y = in.keep(ops::avg_pool(x, averaging));
          out.add(Array(y));
          out.add(ops::avg_pool_adjoint(y, size, averaging));
        });
    }
  const Shape shape(2, 13, 37);
  for (const ops::Sizes& size :
       {ops::Sizes{1, 1}, ops::Sizes{5, 7}, ops::Sizes{13, 37}, ops::Sizes{26, 90}}) {
    const std::string what = text("resample to ", size[0], 'x', size[1]);
    expect_close(what, 128, [=](Inputs& in, Outputs& out) {
      const TensorView x = in.uniform(shape);
      const TensorView& y = in.keep(ops::adaptive_avg_pool(x, size));
      out.add(Array(y));
      out.add(ops::adaptive_avg_pool_adjoint(y, {13, 37}));
      out.add(ops::adaptive_max_pool(x, size, false).y);
      for (const auto mode :
           {ops::Interpolation::nearest, ops::Interpolation::linear, ops::Interpolation::cubic})
        for (const bool corners : {false, true}) {
          if (corners && mode == ops::Interpolation::nearest) continue;
          const ops::Interpolating how{mode, corners, {0, 0}};
          const TensorView& z = in.keep(ops::interpolate(x, size, how));
          out.add(Array(z));
          out.add(ops::interpolate_adjoint(z, {13, 37}, how));
        }
    });
  }
}

void sweep_machine() {
  each_tier([](const std::string& tier) {
    SCOPED_TRACE(tier);
    constexpr i64 steps = 10'000;
    float sum = 0;
    double operations = 0;
    kernels().fma_chains(steps, &sum, &operations);
    EXPECT_NEAR(sum, 500 * operations / (2. * steps), 1e-2 * sum);  // every lane tends to 500
    std::int32_t once = 0, twice = 0;                               // modulo 2^32
    kernels().dot_s8_chains(steps, &once, &operations);
    kernels().dot_s8_chains(2 * steps, &twice, &operations);
    EXPECT_NE(once, 0);
    EXPECT_EQ(static_cast<std::uint32_t>(twice), 2 * static_cast<std::uint32_t>(once));
    EXPECT_GT(operations, 2. * 2 * steps);
    for (const i64 n : kLengths) {
      Inputs in(DType::f32);
      const TensorView x = in.uniform(Shape(n));
      double exact = 0;
      for (i64 i = 0; i < n; ++i) exact += element(x, i);
      kernels().read_all(x.as<float>(), n, &sum);
      EXPECT_NEAR(sum, exact, 1e-6 * double(n));
    }
  });
}

}  // namespace vectile::sweep
