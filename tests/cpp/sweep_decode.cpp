// Sweeps of the decode family: attention to a cache in blocks, of every dtype, and appending to it.
#include <gtest/gtest.h>

#include <cmath>

#include "ops/cast.h"
#include "ops/decode.h"
#include "sweep.h"

namespace vectile::sweep {

namespace {

constexpr i64 kBlocks = 40;

// A cache of two sequences in blocks that take turns.
struct TwoSequences {
  TensorView tables, lengths;
  TwoSequences(Inputs& in, i64 first, i64 second) {
    tables = in.integers(DType::i64, Shape(2, kBlocks / 2), 0, 0);
    for (i64 x = 0; x < kBlocks; ++x) tables.as<i64>()[x] = x % 20 * 2 + x / 20;
    lengths = in.integers(DType::i64, Shape(2), 0, 0);
    lengths.as<i64>()[0] = first, lengths.as<i64>()[1] = second;
  }
  ops::BlockCache of(const TensorView& key, const TensorView& value) const {
    return {key, value, nullptr, nullptr, &tables, &lengths};
  }
};

}  // namespace

void sweep_decode() {
  constexpr struct {
    i64 heads, kv_heads, lq, d, dv, block_size;
  } kCases[] = {{1, 1, 1, 1, 1, 8},    {2, 1, 1, 64, 64, 16},  {4, 1, 1, 33, 7, 11},
                {6, 2, 3, 20, 80, 16}, {2, 2, 19, 16, 17, 32}, {1, 1, 1, 129, 130, 64}};
  for (const auto& v : kCases)
    for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::i8})
      for (const bool terms : {false, true}) {
        const std::string what =
            text("decode ", type, " lq", v.lq, " d", v.d, " dv", v.dv, terms ? " terms" : "");
        // As in sweep_attention; the cache is the same numbers in every type. Beside bytes, queries
        // and weights are rounded to 2^-16 of their largest element: 128 eps of values below 1.
        const double words = type == DType::i8 ? 256 : 0;
        const double bound = 32 + words + 4 * double(v.d) * std::sqrt(double(v.d));
        expect_close(what, bound, [=](Inputs& in, Outputs& out) {
          const TensorView q = in.uniform(Shape(2, v.heads, v.lq, v.d)),
                           sinks = in.uniform(Shape(v.heads)),
                           slopes = in.uniform(Shape(v.heads), -0.01, 0.01);
          const TwoSequences two(in, 8 * 20 - 3, 37);
          const Shape keys(kBlocks, v.kv_heads, v.block_size, v.d),
              values(kBlocks, v.kv_heads, v.block_size, v.dv);
          const TensorView k = in.uniform(keys), x = in.uniform(values);
          ops::BlockCache cache = two.of(k, x);
          const Shape scales(kBlocks, v.kv_heads, v.block_size);
          const TensorView ks = in.uniform(scales, 0.001, 0.008),
                           vs = in.uniform(scales, 0.001, 0.008);
          const TensorView kb = in.integers(DType::i8, keys, -127, 127),
                           vb = in.integers(DType::i8, values, -127, 127);
          if (type == DType::i8 && in.dtype() == DType::f32) {
            cache.key = kb, cache.value = vb;
            cache.key_scales = &ks, cache.value_scales = &vs;
          } else if (type == DType::i8) {  // the same numbers, in float64
            const auto scaled = [&](const TensorView& y, const TensorView& bytes,
                                    const TensorView& scale, i64 n) {
              for (i64 i = 0; i < y.elements(); ++i)
                y.as<double>()[i] = element(bytes, i) * double(float(element(scale, i / n)));
            };
            scaled(k, kb, ks, v.d), scaled(x, vb, vs, v.dv);
          } else if (is_half(type)) {
            const auto rounded = [&](const TensorView& y) -> TensorView {
              const TensorView& half = in.keep(cast_to(cast_to(y, DType::f32), type));
              return in.dtype() == DType::f32 ? half : in.keep(cast_to(half, in.dtype()));
            };
            cache.key = rounded(k), cache.value = rounded(x);
          }
          ops::DecodeOptions options;
          options.return_lse = true;
          if (terms) {
            options.softcap = 2, options.sinks = &sinks, options.alibi_slopes = &slopes;
            options.left = 30;
          }
          ops::DecodeResult r = ops::decode_attention(q, cache, options);
          out.add(std::move(r.out)), out.add(std::move(r.lse));
        });
      }
  for (const i64 n : kLengths)
    expect_equal(text("append_to_cache of ", n), [=](Inputs& in, Outputs& out) {
      const TwoSequences two(in, 5, 0);
      const TensorView k = in.uniform(Shape(2, 3, 9, n)), x = in.uniform(Shape(2, 3, 9, n));
      for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::i8}) {
        const Shape shape(kBlocks, 3, 4, n), rows(kBlocks, 3, 4);
        const TensorView &kc = in.keep(Array::zeros(type, shape)),
                         &vc = in.keep(Array::zeros(type, shape)),
                         &ks = in.keep(Array::zeros(DType::f32, rows)),
                         &vs = in.keep(Array::zeros(DType::f32, rows));
        ops::BlockCache cache = two.of(kc, vc);
        if (type == DType::i8) cache.key_scales = &ks, cache.value_scales = &vs;
        ops::append_to_cache(k, x, cache, nullptr);
        for (const TensorView* y : {&kc, &vc})
          out.add(is_half(type) ? cast_to(*y, DType::f32) : Array(*y));
        out.add(Array(ks)), out.add(Array(vs));
      }
    });
}

}  // namespace vectile::sweep
