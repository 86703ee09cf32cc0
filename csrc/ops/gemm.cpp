#include "ops/gemm.h"

#include <algorithm>
#include <cstring>

#include "ops/gemm_plan.h"
#include "ops/matmul_shape.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

template <class T>
Gemm<T> moved(Gemm<T> g, const Batch::Offsets& by) {
  g.a += by.a, g.b += by.b, g.c += by.c;
  if (g.residual) g.residual += by.c;
  return g;
}

// Products that share B are one taller product when A's and C's rows continue across the batch.
template <class T>
void fold_into_rows(Batch& batch, Gemm<T>& g) {
  for (Shape& shape = batch.shape; shape.ndim > 0; --shape.ndim) {
    const int d = shape.ndim - 1;
    const bool follows = g.m == 1 || (batch.a[d] == g.m * g.a_row && batch.c[d] == g.m * g.c_row);
    if (batch.b[d] != 0 || !follows) return;
    if (g.m == 1) g.a_row = batch.a[d], g.c_row = batch.c[d];
    g.m *= shape[d];
  }
}

// Applies the epilogue to the part of the original C that `block` of the plan covers.
template <class T>
void finish(const Kernels& kernels, const Gemm<T>& g, GemmBlock block, bool swapped) {
  if (!g.bias && !g.residual && g.activation == Activation::none) return;
  if (swapped) block = {block.n0, block.n1, block.m0, block.m1};
  const i64 at = block.m0 * g.c_row + block.n0;
  kernels.of<T>().gemm_finish(g.c + at, g.c_row, block.m1 - block.m0, block.n1 - block.n0,
                              g.bias ? g.bias + block.n0 : nullptr, g.activation,
                              g.residual ? g.residual + at : nullptr);
}

// gemm_dot wants A's rows contiguous along K; A is the small operand.
template <class T>
Buffer<T> contiguous_rows(Gemm<T>& g) {
  if (g.a_col == 1) return {};
  Buffer<T> rows(g.m * g.k);
  for (i64 i = 0; i < g.m; ++i)
    for (i64 s = 0; s < g.k; ++s) rows[i * g.k + s] = g.a[i * g.a_row + s * g.a_col];
  g.a = rows.get();
  g.a_row = g.k;
  g.a_col = 1;
  return rows;
}

// A block of the product `g`, oriented as the plan says.
template <class T>
void run_block(const Kernels& kernels, const GemmPlan<T>& plan, const Gemm<T>& g,
               const GemmBlock& block, T* workspace) {
  const FloatKernels<T>& k = kernels.of<T>();
  if (plan.kernel == plan.dot)
    k.gemm_dot(g, block);
  else if (plan.kernel == plan.axpy)
    k.gemm_axpy(g, block);
  else
    k.gemm(g, block, workspace);
}

// Partial products over parts of K into scratch memory, then their sum in order.
template <class T>
void split_k(const Kernels& kernels, const GemmPlan<T>& plan, const Gemm<T>& original) {
  const i64 parts = plan.k_parts, size = original.m * original.n;
  const Buffer<T> partial(parts * size);
  parallel_for(parts, [&](i64 part) {
    Gemm<T> g = original;
    const i64 k0 = g.k * part / parts;
    g.k = g.k * (part + 1) / parts - k0;
    g.a += k0 * g.a_col;
    g.b += k0 * g.b_row;
    g.c = partial.get() + part * size;
    g.c_row = g.n, g.c_col = 1;
    g.bias = g.residual = nullptr, g.activation = Activation::none;
    GemmPlan<T> whole = plan_gemm(kernels, g, 1);
    whole.mt = whole.g.m, whole.nt = whole.g.n;
    const Buffer<T> rows = whole.kernel == whole.dot ? contiguous_rows(whole.g) : Buffer<T>();
    const Buffer<T> workspace(scratch_of(kernels, whole));
    run_block(kernels, whole, whole.g, whole.block(0), workspace.get());
  });
  for (i64 i = 0; i < original.m; ++i) {
    T* c = original.c + i * original.c_row;
    std::memcpy(c, partial.get() + i * original.n, sizeof(T) * original.n);
    for (i64 part = 1; part < parts; ++part) {
      const T* from = partial.get() + part * size + i * original.n;
      for (i64 j = 0; j < original.n; ++j) c[j] += from[j];
    }
  }
  finish(kernels, original, {0, original.m, 0, original.n}, false);
}

// Packs B of the plan, for all of its blocks.
template <class T>
Buffer<T> pack_shared(const Kernels& kernels, GemmPlan<T>& plan) {
  GemmTiles t;
  kernels.of<T>().gemm_tiles(&t);
  Gemm<T>& g = plan.g;
  const i64 padded = round_up(g.n, t.nr), width = 4 * t.nr;
  const i64 groups = ceil_div(g.n, width), pieces = ceil_div(g.k, g.kc);
  Buffer<T> strips(g.k * padded);
  parallel_for(groups * pieces, [&](i64 i) {
    const i64 k0 = i / groups * g.kc, j = i % groups * width;
    const i64 depth = std::min(g.kc, g.k - k0), columns = std::min(width, g.n - j);
    kernels.of<T>().gemm_pack(g.b + k0 * g.b_row + j * g.b_col, g.b_row, g.b_col, depth, columns,
                              depth, strips.get() + k0 * padded + j * depth);
  });
  g.b = strips.get(), g.b_row = padded, g.b_packed = true, g.pack_b = false;
  return strips;
}

template <class T>
void multiply(const Kernels& kernels, Gemm<T> g, Batch batch) {
  fold_into_rows(batch, g);
  const i64 count = batch.count();
  if (g.m == 0 || g.n == 0 || count == 0) return;
  if (g.k == 0) {
    for (i64 i = 0; i < count; ++i) {
      const Gemm<T> item = moved(g, batch.at(i));
      for (i64 r = 0; r < g.m; ++r) std::fill_n(item.c + r * g.c_row, g.n, T(0));
      finish(kernels, item, {0, g.m, 0, g.n}, false);
    }
    return;
  }
  GemmPlan<T> plan = plan_gemm(kernels, g, count);
  if (plan.k_parts > 1) return split_k(kernels, plan, g);
  const Buffer<T> shared = plan.share_b ? pack_shared(kernels, plan) : Buffer<T>();
  const i64 blocks = plan.blocks();
  const i64 scratch = scratch_of(kernels, plan);
  parallel_ranges(count * blocks, plan.group, [&](i64 begin, i64 end) {
    const Buffer<T> workspace(scratch);
    for (i64 i = begin; i < end; ++i) {
      const Gemm<T> item = moved(g, batch.at(i / blocks));
      Gemm<T> oriented = plan.g;
      oriented.a = plan.swapped ? item.b : item.a;
      if (!plan.share_b) oriented.b = plan.swapped ? item.a : item.b;
      oriented.c = item.c;
      if (oriented.residual) oriented.residual = item.residual;
      const Buffer<T> rows = plan.kernel == plan.dot ? contiguous_rows(oriented) : Buffer<T>();
      const GemmBlock block = plan.block(i % blocks);
      run_block(kernels, plan, oriented, block, workspace.get());
      if (plan.finish) finish(kernels, item, block, plan.swapped);
    }
  });
}

// Describes C = A B for the views' last two axes; bias, activation and packing are left out.
template <class T>
Gemm<T> describe(const TensorView& a, const TensorView& b, const TensorView& c) {
  Gemm<T> g{};
  g.m = c.shape[-2], g.n = c.shape[-1], g.k = a.shape[-1];
  g.a = a.as<T>(), g.a_row = a.stride(-2), g.a_col = a.stride(-1);
  g.b = b.as<T>(), g.b_row = b.stride(-2), g.b_col = b.stride(-1);
  g.c = c.as<T>(), g.c_row = c.stride(-2), g.c_col = c.stride(-1);
  // Strides of axes with one element mean nothing; give them the value the kernels like.
  if (g.k == 1) g.a_col = 1, g.b_row = 1;
  if (g.n == 1) g.b_col = 1, g.c_col = 1;
  if (g.m == 1) g.a_row = g.k, g.c_row = g.n;
  return g;
}

template <class T>
void linear_into(const Kernels& kernels, const TensorView& x, const TensorView& weight_t,
                 const PackedMatrix* packed, const TensorView* bias, Activation activation,
                 const TensorView* residual, const TensorView& y) {
  const TensorView rows = x.ndim() == 1 ? with_axis(x, 0) : x;
  const TensorView c = y.ndim() == 1 ? with_axis(y, 0) : y;
  Gemm<T> g = describe<T>(rows, weight_t, c);
  if (packed) {
    const i64 nr = [&] {
      GemmTiles t;
      kernels.of<T>().gemm_tiles(&t);
      return t.nr;
    }();
    g.b = packed->data<T>();
    g.b_packed = true;
    g.b_row = round_up(g.n, nr);
    g.kc = packed->kc();
  }
  const Array dense = bias ? contiguous(*bias) : Array();
  g.bias = bias ? dense.as<T>() : nullptr;
  g.activation = activation;
  const Array added = residual ? contiguous(*residual) : Array();
  g.residual = residual ? added.as<T>() : nullptr;
  multiply(kernels, g, Batch(rows, weight_t, c));
}

void check_residual(const TensorView& residual, const TensorView& y) {
  check_same_dtype("linear", "residual", residual, y);
  check_shape("linear", "residual", residual, y.shape);
}

Array linear_any(const Kernels& kernels, const TensorView& x, const TensorView& weight_t,
                 const PackedMatrix* packed, const TensorView* bias, Activation activation,
                 const TensorView* residual) {
  Array y = Array::empty(x.dtype, check_linear(x, weight_t.shape[1], weight_t.shape[0], bias));
  y.origin = x.origin;
  if (residual) check_residual(*residual, y);
  dispatch_float(x.dtype, [&](auto t) {
    linear_into<decltype(t)>(kernels, x, weight_t, packed, bias, activation, residual, y);
  });
  return y;
}

}  // namespace

Array matmul(const TensorView& a, const TensorView& b, const TensorView* out) {
  constexpr const char* op = "matmul";
  check_floating(op, "a", a);
  check_same_dtype(op, "b", b, a);
  const MatmulShape shape(op, a, b);
  if (is_half(a.dtype)) {
    if (out) check_out(op, *out, a.dtype, shape.result);
    const Array c = matmul(widened(a), widened(b));
    if (!out) return cast_to(c, a.dtype);
    cast_strided(c, *out);
    return Array(*out);
  }
  // Written in place when its rows are dense and it shares no memory with an operand.
  if (out) check_out(op, *out, a.dtype, shape.result);
  const bool dense = out && (shape.vector_b || out->shape.back() <= 1 || out->stride(-1) == 1);
  const bool direct = dense && !overlaps(*out, a) && !overlaps(*out, b);
  Array c = direct ? Array(*out) : Array::empty(a.dtype, shape.result);
  const TensorView matrix = shape.matrix(c);
  dispatch_float(a.dtype, [&](auto t) {
    multiply(kernels(), describe<decltype(t)>(shape.a, shape.b, matrix),
             Batch(shape.a, shape.b, matrix));
  });
  if (!out || direct) return c;
  copy_strided(c, *out);
  return Array(*out);
}

Shape check_linear(const TensorView& x, i64 out, i64 in, const TensorView* bias, const char* op) {
  check(x.ndim() > 0, op, "x", "ndim", "at least 1", 0);
  if (x.shape.back() != in) [[unlikely]]
    fail(op, "x", "shape", text("(..., ", in, ")"), x.shape);
  if (bias) {
    check_same_dtype(op, "bias", *bias, x);
    check_shape(op, "bias", *bias, Shape(out));
  }
  Shape shape = x.shape;
  shape[-1] = out;
  return shape;
}

void add_residual(const Array& y, const TensorView& residual) {
  check_residual(residual, y);
  const Array added = contiguous(residual);
  dispatch_float(y.dtype, [&](auto t) {
    using T = decltype(t);
    parallel_ranges(y.elements(), kGrain, [&](i64 begin, i64 end) {
      kernels_of<T>().gemm_finish(y.as<T>() + begin, 0, 1, end - begin, nullptr, Activation::none,
                                  added.as<T>() + begin);
    });
  });
}

Array linear(const TensorView& x, const TensorView& weight, const TensorView* bias,
             Activation activation, const TensorView* residual) {
  check_floating("linear", "x", x);
  if (is_half(x.dtype)) {
    const auto op = [&](const TensorView& in, const TensorView& w, const TensorView* b,
                        const TensorView* r) { return linear(in, w, b, activation, r); };
    return in_float32(x.dtype, op, x, weight, bias, residual);
  }
  check_same_dtype("linear", "weight", weight, x);
  check(weight.ndim() == 2, "linear", "weight", "ndim", 2, weight.ndim());
  constexpr int order[] = {1, 0};
  return linear_any(kernels(), x, permuted(weight, order), nullptr, bias, activation, residual);
}

PackedMatrix::PackedMatrix(const TensorView& weight) : kernels_(&vectile::kernels()) {
  check_floating("pack", "weight", weight);
  check(weight.ndim() == 2, "pack", "weight", "ndim", 2, weight.ndim());
  if (is_half(weight.dtype)) {  // packed as float32, for operands of the half type
    *this = PackedMatrix(widened(weight));
    dtype_ = weight.dtype;
    return;
  }
  dtype_ = weight.dtype;
  n_ = weight.shape[0], k_ = weight.shape[1];
  dispatch_float(dtype_, [&](auto t) {
    using T = decltype(t);
    GemmTiles tiles;
    kernels_->of<T>().gemm_tiles(&tiles);
    const i64 columns = round_up(n_, tiles.nr);
    kc_ = std::max<i64>(1, ceil_div(k_, std::max<i64>(1, ceil_div(k_, tiles.kc))));
    bytes_ = static_cast<i64>(checked_bytes(Shape(k_, columns), dtype_));
    data_ = Buffer<char>(bytes_);
    kernels_->of<T>().gemm_pack(weight.as<T>(), weight.strides[1], weight.strides[0], k_, n_, kc_,
                                reinterpret_cast<T*>(data_.get()));
  });
}

Array linear(const TensorView& x, const PackedMatrix& weight, const TensorView* bias,
             Activation activation, const TensorView* residual) {
  check_floating("linear", "x", x);
  const DType given = given_dtype(x);
  check<TypeError>(given == weight.dtype(), "linear", "weight", "dtype", given, weight.dtype());
  if (is_half(x.dtype)) {
    const auto op = [&](const TensorView& in, const TensorView* b, const TensorView* r) {
      return linear(in, weight, b, activation, r);
    };
    return in_float32(x.dtype, op, x, bias, residual);
  }
  TensorView shape_only;
  shape_only.shape = Shape(weight.columns(), weight.rows());
  shape_only.strides[0] = shape_only.strides[1] = 0;
  return linear_any(weight.kernels(), x, shape_only, &weight, bias, activation, residual);
}

Activation parse_activation(const char* op, const char* name) {
  constexpr const char* names[] = {"none", "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"};
  if (!name) return Activation::none;
  for (int i = 1; i < 7; ++i)
    if (std::strcmp(name, names[i]) == 0) return static_cast<Activation>(i);
  fail(op, "activation", "value", "None, 'relu', 'gelu', 'gelu_tanh', 'silu', 'tanh' or 'sigmoid'",
       text("'", name, "'"));
}

}  // namespace vectile::ops
