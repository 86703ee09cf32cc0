#include "ops/gemm.h"

#include <algorithm>

#include "ops/gemm_plan.h"
#include "ops/matmul_args.h"
#include "ops/staging.h"

namespace vectile::ops {
namespace {

template <class S>
constexpr DType dtype_of = std::is_same_v<S, Float16>    ? DType::f16
                           : std::is_same_v<S, BFloat16> ? DType::bf16
                           : sizeof(S) == 4              ? DType::f32
                                                         : DType::f64;

template <class S>
S*& result(Gemm<S>& g) {
  if constexpr (widens<S>)
    return g.rounded;
  else
    return g.c;
}

template <class S>
Gemm<S> moved(Gemm<S> g, const Batch::Offsets& by) {
  g.a += by.a, g.b += by.b, result(g) += by.c;
  if (g.residual) g.residual += by.c;
  return g;
}

// Writes `block` of C from its sums, rows `row` apart: the epilogue, and the rounding of half
// types.
template <class S>
void finish(const Kernels& kernels, Gemm<S> g, const GemmBlock& block, const Computed<S>* sums,
            i64 row) {
  const i64 at = block.m0 * g.c_row + block.n0;
  kernels.of<S>().gemm_finish(sums, row, result(g) + at, g.c_row, block.m1 - block.m0,
                              block.n1 - block.n0, g.bias ? g.bias + block.n0 : nullptr,
                              g.activation, g.residual ? g.residual + at : nullptr);
}

// A for gemm_dot, its rows contiguous along K, and gemm_axpy, in any layout; the small operand,
// copied where it is not that, or not of type T.
template <class S>
struct SmallOperand {
  using T = Computed<S>;
  const T* data;
  i64 row, col;
  Buffer<T> copy;

  SmallOperand(const Kernels& kernels, const Gemm<S>& g, bool any_layout)
      : data(nullptr), row(g.a_row), col(g.a_col) {
    if constexpr (!widens<S>) {
      data = g.a;
      if (any_layout || g.a_col == 1) return;
    }
    copy = Buffer<T>(g.m * g.k);
    data = copy.get(), row = g.k, col = 1;
    const Buffer<S> gathered(widens<S> && g.a_col != 1 ? g.k : 0);
    for (i64 i = 0; i < g.m; ++i) {
      const S* from = g.a + i * g.a_row;
      T* const to = copy.get() + i * g.k;
      S* const dense = [&] {
        if constexpr (widens<S>)
          return gathered.get();
        else
          return to;
      }();
      if (g.a_col != 1) {
        for (i64 s = 0; s < g.k; ++s) dense[s] = from[s * g.a_col];
        from = dense;
      }
      if constexpr (widens<S>) kernels.cast(from, dtype_of<S>, to, DType::f32, g.k);
    }
  }
};

// A block of the product `g`, oriented as the plan says.
template <class S>
void run_block(const Kernels& kernels, const GemmPlan<S>& plan, const Gemm<S>& g,
               const GemmBlock& block, Computed<S>* workspace) {
  const auto& k = kernels.of<S>();
  if (plan.kernel == plan.tile) return k.gemm(g, block, workspace);
  const SmallOperand<S> a(kernels, g, plan.kernel == plan.axpy);
  if (plan.kernel == plan.dot)
    k.gemm_dot(g, block, a.data, a.row);
  else
    k.gemm_axpy(g, block, a.data, a.row, a.col);
}

// Partial products over parts of K into scratch memory, then their sum in order.
template <class S>
void split_k(const Kernels& kernels, const GemmPlan<S>& plan, const Gemm<S>& original) {
  using T = Computed<S>;
  const i64 parts = plan.k_parts, size = original.m * original.n;
  const Buffer<T> partial(parts * size);
  parallel_for(parts, [&](i64 part) {
    Gemm<S> g = original;
    const i64 k0 = g.k * part / parts;
    g.k = g.k * (part + 1) / parts - k0;
    g.a += k0 * g.a_col;
    g.b += k0 * g.b_row;
    g.c = partial.get() + part * size, g.rounded = nullptr;
    g.c_row = g.n, g.c_col = 1;
    g.bias = nullptr, g.residual = nullptr, g.activation = Activation::none;
    GemmPlan<S> whole = plan_gemm(kernels, g, 1);
    whole.mt = whole.g.m, whole.nt = whole.g.n;
    const Buffer<T> workspace(scratch_of(kernels, whole));
    run_block(kernels, whole, whole.g, whole.block(0), workspace.get());
  });
  T* const sum = partial.get();
  for (i64 part = 1; part < parts; ++part)
    for (i64 i = 0; i < size; ++i) sum[i] += sum[part * size + i];
  finish(kernels, original, {0, original.m, 0, original.n}, sum, original.n);
}

// A block of the plan for the product `item` of its batch: its sums, where the epilogue is left to
// the caller, in C itself or in the workspace.
template <class S>
void run_item(const Kernels& kernels, const GemmPlan<S>& plan, Gemm<S> item, GemmBlock block,
              Computed<S>* workspace) {
  Gemm<S> g = plan.g;
  g.a = plan.swapped ? item.b : item.a;
  g.b = plan.swapped ? item.a : item.b;
  result(g) = result(item);
  if (g.residual) g.residual = item.residual;
  if (!plan.finish) return run_block(kernels, plan, g, block, workspace);
  const GemmBlock at = plan.swapped ? GemmBlock{block.n0, block.n1, block.m0, block.m1} : block;
  i64 row = item.c_row;
  if constexpr (widens<S>) {
    row = at.n1 - at.n0;
    g.c_row = plan.swapped ? 1 : row, g.c_col = plan.swapped ? row : 1;
    g.c = workspace - (block.m0 * g.c_row + block.n0 * g.c_col), g.rounded = nullptr;
    run_block(kernels, plan, g, block, workspace + plan.mt * plan.nt);
    finish(kernels, item, at, workspace, row);
  } else {
    run_block(kernels, plan, g, block, workspace);
    finish(kernels, item, at, item.c + at.m0 * row + at.n0, row);
  }
}

// Packs B of the plan, for all of its blocks.
template <class S>
Buffer<Computed<S>> pack_shared(const Kernels& kernels, GemmPlan<S>& plan) {
  GemmTiles t;
  kernels.of<Computed<S>>().gemm_tiles(&t);
  Gemm<S>& g = plan.g;
  const i64 padded = round_up(g.n, t.nr), width = 4 * t.nr;
  const i64 groups = ceil_div(g.n, width), pieces = ceil_div(g.k, g.kc);
  Buffer<Computed<S>> strips(g.k * padded);
  parallel_for(groups * pieces, [&](i64 i) {
    const i64 k0 = i / groups * g.kc, j = i % groups * width;
    const i64 depth = std::min(g.kc, g.k - k0), columns = std::min(width, g.n - j);
    kernels.of<S>().gemm_pack(g.b + k0 * g.b_row + j * g.b_col, g.b_row, g.b_col, depth, columns,
                              depth, strips.get() + k0 * padded + j * depth);
  });
  g.strips = strips.get(), g.b_row = padded, g.pack_b = false;
  return strips;
}

// The products of the batch on a unit for 16 bits; `strips` in place of B, or null.
template <class S>
void multiply_on(const Unit16& unit, const Gemm<S>& g, const std::uint16_t* strips,
                 const Batch& batch) {
  if constexpr (sizeof(S) < 8)
    parallel_for(batch.count(), [&](i64 i) {
      Gemm<S> p = moved(g, batch.at(i));
      multiply_16(unit, {p.m, p.n, p.k, dtype_of<S>, p.a, p.a_row, p.a_col, p.b, p.b_row, p.b_col,
                         strips, result(p), p.c_row, p.bias, p.residual, p.activation});
    });
}

template <class S>
void multiply(const Kernels& kernels, Gemm<S> g, Batch batch, Compute compute,
              const PackedMatrix* packed = nullptr) {
  using T = Computed<S>;
  fold_into_rows(batch, g);
  const i64 count = batch.count();
  if (g.m == 0 || g.n == 0 || count == 0) return;
  if (g.k == 0) {
    const Buffer<T> zeros(g.n);
    std::fill_n(zeros.get(), g.n, T(0));
    for (i64 i = 0; i < count; ++i)
      finish(kernels, moved(g, batch.at(i)), {0, g.m, 0, g.n}, zeros.get(), 0);
    return;
  }
  if (packed && packed->unit())
    return multiply_on(packed->unit(), g, packed->data<std::uint16_t>(), batch);
  if (const Unit16 unit = packed ? Unit16() : unit_16(kernels, compute, dtype_of<S>);
      worth_16(unit, dtype_of<S>, g.m, g.n, g.k))
    return multiply_on(unit, g, nullptr, batch);
  GemmPlan<S> plan = plan_gemm(kernels, g, count);
  if (plan.k_parts > 1) return split_k(kernels, plan, g);
  const Buffer<T> shared = plan.share_b ? pack_shared(kernels, plan) : Buffer<T>();
  const i64 blocks = plan.blocks();
  const i64 scratch = scratch_of(kernels, plan);
  parallel_ranges(count * blocks, plan.group, [&](i64 begin, i64 end) {
    const Buffer<T> workspace(scratch);
    for (i64 i = begin; i < end; ++i)
      run_item(kernels, plan, moved(g, batch.at(i / blocks)), plan.block(i % blocks),
               workspace.get());
  });
}

// Describes C = A B for the views' last two axes; bias, activation and packing are left out.
template <class S>
Gemm<S> describe(const TensorView& a, const TensorView& b, const TensorView& c) {
  Gemm<S> g{};
  g.m = c.shape[-2], g.n = c.shape[-1], g.k = a.shape[-1];
  g.a = a.as<S>(), g.a_row = a.stride(-2), g.a_col = a.stride(-1);
  g.b = b.as<S>(), g.b_row = b.stride(-2), g.b_col = b.stride(-1);
  result(g) = c.as<S>(), g.c_row = c.stride(-2), g.c_col = c.stride(-1);
  // Strides of axes with one element mean nothing; give them the value the kernels like.
  if (g.k == 1) g.a_col = 1, g.b_row = 1;
  if (g.n == 1) g.b_col = 1, g.c_col = 1;
  if (g.m == 1) g.a_row = g.k, g.c_row = g.n;
  return g;
}

template <class S>
void linear_into(const Kernels& kernels, const TensorView& x, const TensorView& weight_t,
                 const PackedMatrix* packed, const TensorView* bias, Activation activation,
                 const TensorView* residual, const TensorView& y, Compute compute) {
  using T = Computed<S>;
  const TensorView rows = x.ndim() == 1 ? with_axis(x, 0) : x;
  const TensorView c = y.ndim() == 1 ? with_axis(y, 0) : y;
  Gemm<S> g = describe<S>(rows, weight_t, c);
  if (packed && !packed->unit()) {
    GemmTiles tiles;
    kernels.of<T>().gemm_tiles(&tiles);
    g.strips = packed->data<T>();
    g.b_row = round_up(g.n, tiles.nr);
    g.kc = packed->kc();
  }
  const Array dense = widened(bias);
  g.bias = dense.as<T>();
  g.activation = activation;
  const Array added = residual ? contiguous(*residual) : Array();
  g.residual = added.as<S>();
  multiply(kernels, g, Batch(rows, weight_t, c), compute, packed);
}

Array linear_any(const Kernels& kernels, const TensorView& x, const TensorView& weight_t,
                 const PackedMatrix* packed, const TensorView* bias, Activation activation,
                 const TensorView* residual, Compute compute) {
  Array y = Array::empty(x.dtype, check_linear(x, weight_t.shape[1], weight_t.shape[0], bias));
  y.origin = x.origin;
  if (residual) check_residual(*residual, y);
  dispatch_floating(x.dtype, [&](auto s) {
    linear_into<decltype(s)>(kernels, x, weight_t, packed, bias, activation, residual, y, compute);
  });
  return y;
}

}  // namespace

Array matmul(const TensorView& a, const TensorView& b, const TensorView* out, Compute compute) {
  constexpr const char* op = "matmul";
  check_floating(op, "a", a);
  check_compute(op, "a", a, compute);
  check_same_dtype(op, "b", b, a);
  const MatmulShape shape(op, a, b);
  // Written in place when its rows are dense and it shares no memory with an operand.
  if (out) check_out(op, *out, a.dtype, shape.result);
  const bool dense = out && (shape.vector_b || out->shape.back() <= 1 || out->stride(-1) == 1);
  const bool direct = dense && !overlaps(*out, a) && !overlaps(*out, b);
  Array c = direct ? Array(*out) : Array::empty(a.dtype, shape.result);
  const TensorView matrix = shape.matrix(c);
  dispatch_floating(a.dtype, [&](auto s) {
    multiply(kernels(), describe<decltype(s)>(shape.a, shape.b, matrix),
             Batch(shape.a, shape.b, matrix), compute);
  });
  if (!out || direct) return c;
  copy_strided(c, *out);
  return Array(*out);
}

Array linear(const TensorView& x, const TensorView& weight, const TensorView* bias,
             Activation activation, const TensorView* residual, Compute compute) {
  linear_args(x, weight, bias, compute);
  constexpr int order[] = {1, 0};
  return linear_any(kernels(), x, permuted(weight, order), nullptr, bias, activation, residual,
                    compute);
}

PackedMatrix::PackedMatrix(const TensorView& weight, Compute compute)
    : compute_(compute), kernels_(&vectile::kernels()) {
  check_floating("pack", "weight", weight);
  check_compute("pack", "weight", weight, compute);
  check(weight.ndim() == 2, "pack", "weight", "ndim", 2, weight.ndim());
  dtype_ = weight.dtype;
  n_ = weight.shape[0], k_ = weight.shape[1];
  unit_ = unit_16(*kernels_, compute, dtype_);
  if (unit_) {
    bytes_ = 2 * packed_elements_16(unit_, k_, n_);
    data_ = Buffer<char>(bytes_);
    pack_16(unit_, weight.data, dtype_, weight.strides[1], weight.strides[0], k_, n_,
            reinterpret_cast<std::uint16_t*>(data_.get()));
    return;
  }
  dispatch_floating(dtype_, [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    GemmTiles tiles;
    kernels_->of<T>().gemm_tiles(&tiles);
    const i64 columns = round_up(n_, tiles.nr);
    kc_ = std::max<i64>(1, ceil_div(k_, std::max<i64>(1, ceil_div(k_, tiles.kc))));
    bytes_ = static_cast<i64>(checked_bytes(Shape(k_, columns), compute_dtype(dtype_)));
    data_ = Buffer<char>(bytes_);
    kernels_->of<S>().gemm_pack(weight.as<S>(), weight.strides[1], weight.strides[0], k_, n_, kc_,
                                reinterpret_cast<T*>(data_.get()));
  });
}

Array linear(const TensorView& x, const PackedMatrix& weight, const TensorView* bias,
             Activation activation, const TensorView* residual, Compute compute) {
  check_floating("linear", "x", x);
  if (compute != Compute::standard && compute != weight.compute()) [[unlikely]]
    fail("linear", "compute", "value",
         weight.compute() == Compute::standard
             ? text("None, as weight was packed")
             : text("None or '", compute_name(weight.compute()), "', as weight was packed"),
         text("'", compute_name(compute), "'"));
  const DType given = given_dtype(x);
  check<TypeError>(given == weight.dtype(), "linear", "weight", "dtype", given, weight.dtype());
  TensorView shape_only;
  shape_only.shape = Shape(weight.columns(), weight.rows());
  shape_only.strides[0] = shape_only.strides[1] = 0;
  return linear_any(weight.kernels(), x, shape_only, &weight, bias, activation, residual, compute);
}

}  // namespace vectile::ops
