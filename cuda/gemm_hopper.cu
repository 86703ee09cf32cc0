// Matrix products of floating-point numbers for sm_90a; float32 is first laid out anew, as three
// planes of bfloat16 (Split) or rounded to TF32, and so are operands that the copy engine cannot
// read.
#include "gemm_hopper.h"

namespace vectile::cuda {
namespace hopper {

template <class S>
struct PairOf {
  S at[2];
};

// What the forms of gemm_tile.h's arithmetics share.
template <class Math, class S, class Operand, int PLANES, int COLUMNS, int STAGES>
struct FloatForm : FormOf<S, float, PLANES, COLUMNS, STAGES> {
  using Pair = PairOf<S>;
  static constexpr int terms = PLANES == 1 ? 1 : Math::terms, sums = Math::sums;
  __device__ static constexpr Term term(int i) {
    return PLANES == 1 ? Term{0, 0, 0} : Math::term(i);
  }
  template <bool a_across, bool b_across, bool add>
  __device__ static void multiply(float (&sum)[COLUMNS / 2], std::uint64_t a, std::uint64_t b) {
    warpgroup_multiply_add<Operand, COLUMNS, a_across, b_across, add>(sum, a, b);
  }
};

namespace {

template <class Math>
struct Form;

template <class S>
struct Form<Halves<S>> : FloatForm<Halves<S>, S, S, 1, 256, 4> {
  __device__ static void convert(S x, S y, PairOf<S> (&to)[1]) { to[0] = {{x, y}}; }
};
template <>
struct Form<Rounded> : FloatForm<Rounded, float, Tf32, 1, 256, 4> {
  __device__ static void convert(float x, float y, PairOf<float> (&to)[1]) {
    to[0] = {{to_tf32(x), to_tf32(y)}};
  }
};
template <>
struct Form<Split> : FloatForm<Split, BFloat16, BFloat16, 3, 128, 2> {
  __device__ static void convert(float x, float y, PairOf<BFloat16> (&to)[3]) {
    unsigned pair[3];
    Split::cut_up(x, y, pair);
#pragma unroll
    for (int p = 0; p < 3; ++p)
      to[p] = {
          {{static_cast<std::uint16_t>(pair[p])}, {static_cast<std::uint16_t>(pair[p] >> 16)}}};
  }
};

// ---- laying operands out ------------------------------------------------------------------------

constexpr int kPackLines = 32, kPackDepth = 64, kPackThreads = 256;

// Lines of k elements as planes of lines along k, `pitch` elements apart; two axes of batches.
template <class Math, class Stored = typename Math::Stored,
          class Element = typename Form<Math>::Element>
__global__ void __launch_bounds__(kPackThreads)
    pack_kernel(Lines<Stored> x, i64 size0, i64 size1, i64 stride0, i64 stride1, Element* to,
                i64 pitch) {
  using F = Form<Math>;
  using Pair = typename F::Pair;
  __shared__ Stored tile[kPackLines][kPackDepth + 1];
  const i64 across = ceil_div(x.count, kPackLines);
  const i64 line = blockIdx.x % across * kPackLines, k = blockIdx.x / across * kPackDepth;
  const int thread = static_cast<int>(threadIdx.x);
  for (i64 z = blockIdx.z; z < size0 * size1; z += gridDim.z) {
    const Stored* from = x.at + z % size0 * stride0 + z / size0 * stride1;
    for (int i = thread; i < kPackLines * kPackDepth; i += kPackThreads) {
      const int l = x.depth == 1 ? i / kPackDepth : i % kPackLines;
      const int d = x.depth == 1 ? i % kPackDepth : i / kPackLines;
      const bool inside = line + l < x.count && k + d < x.k;
      tile[l][d] = inside ? from[(line + l) * x.line + (k + d) * x.depth] : Stored{};
    }
    __syncthreads();
    for (int i = thread; i < kPackLines * kPackDepth / 2; i += kPackThreads) {
      const int l = i / (kPackDepth / 2), d = i % (kPackDepth / 2) * 2;
      if (line + l >= x.count || k + d >= pitch) continue;
      Pair pairs[F::planes];
      F::convert(tile[l][d], tile[l][d + 1], pairs);
#pragma unroll
      for (int p = 0; p < F::planes; ++p)
        *reinterpret_cast<Pair*>(to + ((z * F::planes + p) * x.count + line + l) * pitch + k + d) =
            pairs[p];
    }
    __syncthreads();
  }
}

// An operand as the copy engine reads it, with the memory that holds it where it was laid out anew.
struct Operand {
  Array packed;
  TensorMap map;
  bool across = false;
};

template <class Math>
Operand prepare(const Lines<typename Math::Stored>& x, const BatchAxes& batch, i64 Strides::* by) {
  using S = typename Math::Stored;
  using Element = typename Form<Math>::Element;
  constexpr int planes = Form<Math>::planes, item = sizeof(Element);
  i64 size[2], stride[2];
  for (int d = 0; d < 2; ++d) {
    stride[d] = d < batch.axes ? batch.stride[d].*by : 0;
    size[d] = stride[d] ? batch.size[d] : 1;
  }
  Operand o;
  if constexpr (sizeof(S) == 2) {
    // Of an axis of one element any stride will do.
    const auto view = [&](i64 along, i64 lines, i64 pitch) {
      const i64 next = pitch * item;
      return Tensor{x.at,
                    item,
                    {along, lines, 1, size[0], size[1]},
                    {next, next, size[0] > 1 ? stride[0] * item : next,
                     size[1] > 1 ? stride[1] * item : next}};
    };
    const Tensor along = view(x.k, x.count, x.line), across = view(x.count, x.k, x.depth);
    o.across = !(x.depth == 1 && can_map(along)) && x.line == 1 && can_map(across);
    if (o.across || (x.depth == 1 && can_map(along))) {
      o.map = make_map(o.across ? across : along);
      return o;
    }
  }
  const i64 pitch = ceil_div(x.k, 16 / item) * (16 / item), count = size[0] * size[1];
  o.packed = Array::empty(DType::u8, Shape(count, planes * x.count, pitch * item));
  const i64 blocks = ceil_div(x.count, kPackLines) * ceil_div(x.k, kPackDepth);
  launch(
      pack_kernel<Math>,
      {dim3(static_cast<unsigned>(blocks), 1, static_cast<unsigned>(std::min(count, kMostBatches))),
       kPackThreads},
      x, size[0], size[1], stride[0], stride[1], o.packed.template as<Element>(), pitch);
  const i64 plane = x.count * pitch * item;
  o.map = make_map({o.packed.data,
                    item,
                    {x.k, x.count, planes, size[0], size[1]},
                    {pitch * item, plane, planes * plane, size[0] * planes * plane}});
  return o;
}

}  // namespace
}  // namespace hopper

template <class Math>
bool multiply_on_hopper(const Product<typename Math::Stored>& p) {
  using namespace hopper;
  using F = Form<Math>;
  const i64 m = p.c.m, n = p.c.n, k = p.a.k;
  if (p.batch.axes > 2 || !suits<F>(m, n, k, p.batch.count)) return false;
  const Operand a = prepare<Math>(p.a, p.batch, &Strides::a);
  const Operand b = prepare<Math>(p.b, p.batch, &Strides::b);
  const auto start = [&](auto a_across, auto b_across) {
    run<F, a_across.value, b_across.value>(a.map, b.map, p.c, p.batch, m, n, k);
  };
  constexpr std::true_type yes{};
  constexpr std::false_type no{};
  if constexpr (sizeof(typename Math::Stored) == 2) {
    if (a.across)
      b.across ? start(yes, yes) : start(yes, no);
    else
      b.across ? start(no, yes) : start(no, no);
  } else {
    start(no, no);  // laid out along k
  }
  return true;
}

template bool multiply_on_hopper<Halves<BFloat16>>(const Product<BFloat16>&);
template bool multiply_on_hopper<Halves<Float16>>(const Product<Float16>&);
template bool multiply_on_hopper<Rounded>(const Product<float>&);
template bool multiply_on_hopper<Split>(const Product<float>&);

}  // namespace vectile::cuda
