// gemm_f8: a float matrix times weights stored in 8-bit floating point, which are widened a piece
// of a strip at a time: it is then read from the L1 cache by the register tile of gemm.
#include "kernels/gemm_f8_types.h"

#include "kernels/epilogue.h"
#include "kernels/microkernel.h"
#include "kernels/rows.h"
#include "simd/storage.h"

namespace vectile::VECTILE_TIER {

using std::uint8_t;

constexpr int kNr = Tile<Vec<float>>::nr;
constexpr i64 kPiece = 4096 / kNr;  // values along k widened at a time: 16 KB of float32

static void gemm_f8_columns(int* nr) { *nr = kNr; }

static void gemm_f8_pack(const uint8_t* q, i64 n, i64 k, uint8_t* strips) {
  for (i64 j = 0; j < n; j += kNr)
    for (i64 s = 0; s < k; ++s)
      for (i64 c = j; c < j + kNr; ++c) *strips++ = c < n ? q[c * k + s] : uint8_t{0};
}

static void gemm_f8_unpack(const uint8_t* strips, i64 n, i64 k, uint8_t* q) {
  for (i64 j = 0; j < n; ++j)
    for (i64 s = 0; s < k; ++s) q[j * k + s] = strips[j / kNr * kNr * k + s * kNr + j % kNr];
}

// One row of a times a strip, without the way through memory.
template <class S>
static void multiply_row(const float* a, const uint8_t* strip, i64 k, float* acc) {
  using V = Vec<float>;
  constexpr int nv = kNr / V::lanes, chains = 4;  // independent sums, for the latency of fma
  V sums[chains][nv];
  const auto step = [&](i64 s, int chain) VECTILE_LAMBDA {
    const S* w = reinterpret_cast<const S*>(strip + s * kNr);
    const V x(a[s]);
#pragma GCC unroll 4
    for (int v = 0; v < nv; ++v)
      sums[chain][v] = multiply_add(x, load_finite(w + v * V::lanes), sums[chain][v]);
  };
  i64 s = 0;
  for (; s + chains <= k; s += chains) {
#pragma GCC unroll 4
    for (int c = 0; c < chains; ++c) step(s + c, c);
  }
  for (; s < k; ++s) step(s, 0);
#pragma GCC unroll 4
  for (int v = 0; v < nv; ++v)
    ((sums[0][v] + sums[1][v]) + (sums[2][v] + sums[3][v])).store(acc + v * V::lanes);
}

template <class S, class T>
static void widen(const uint8_t* strip, i64 count, T* to) {
  using V = Vec<float>;
  for (i64 i = 0; i < count; i += V::lanes) {
    const V v = load_finite(reinterpret_cast<const S*>(strip + i));
    if constexpr (sizeof(T) == 4) {
      v.store(to + i);
    } else {
      float lanes[V::lanes];
      v.store(lanes);
      for (int l = 0; l < V::lanes; ++l) to[i + l] = T(lanes[l]);
    }
  }
}

// acc (rows, nr) = rows of a times a strip.
template <class S, class T>
static void multiply_strip(const T* a, i64 a_row, i64 rows, const uint8_t* strip, i64 k, T* acc) {
  using V = Vec<T>;
  constexpr int nr = Tile<V>::nr;
  if constexpr (sizeof(T) == 4)
    if (rows == 1) return multiply_row<S>(a, strip, k, acc);
  alignas(64) T piece[kPiece * kNr];
  const Panels panels(rows, Tile<V>::mr);
  for (i64 s = 0; s < k; s += kPiece) {
    const i64 depth = k - s < kPiece ? k - s : kPiece;
    widen<S>(strip + s * kNr, depth * kNr, piece);
    for (i64 p = 0; p < panels.count; ++p) {
      const i64 i = panels.start(p);
      const auto tile = tile_function<V>(panels.rows(p), nr);
      for (int c = 0; c < kNr; c += nr)
        tile(depth, a + i * a_row + s, a_row, 1, piece + c, kNr, acc + i * kNr + c, kNr, 0, s > 0,
             {});
    }
  }
}

template <class T>
static void gemm_f8_linear(const GemmF8<T>& g, const GemmBlock& block) {
  using V = Vec<T>;
  alignas(64) T acc[kF8Rows * kNr];
  const i64 rows = block.m1 - block.m0;
  const bool e4m3 = g.format == DType::f8e4m3;
  const auto multiply = e4m3 ? &multiply_strip<Float8E4M3, T> : &multiply_strip<Float8E5M2, T>;
  // Taken out of the product, not the scale, which may be the largest there is.
  const V unit(T(1) / T(e4m3 ? finite_scale<Float8E4M3> : finite_scale<Float8E5M2>));
  for (i64 j = block.n0; j < block.n1; j += kNr) {
    const i64 columns = block.n1 - j < kNr ? block.n1 - j : kNr;
    if (g.k == 0)
      for (i64 e = 0; e < rows * kNr; ++e) acc[e] = T(0);
    multiply(g.a + block.m0 * g.a_row, g.a_row, rows, g.strips + j * g.k, g.k, acc);
    T* to = g.y + block.m0 * g.y_row + j;
    for (i64 i = 0; i < rows; ++i)
      row_each<T>(columns, [&](i64 c, auto... n) VECTILE_LAMBDA {
        (V::load(acc + i * kNr + c, n...) * unit * V::load(g.scales + j + c, n...))
            .store(to + i * g.y_row + c, n...);
      });
    finish_block(to, g.y_row, rows, columns, g.bias ? g.bias + j : nullptr, g.activation,
                 g.residual ? g.residual + (to - g.y) : nullptr);
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
