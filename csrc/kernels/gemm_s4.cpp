// gemm_s4: activations in 8 bits times weights in 4, groups along k with a scale each. Sums within
// a group are exact integers; a finished group is scaled and added to float accumulators.
#include "kernels/gemm_s4_types.h"

#include "kernels/epilogue.h"
#include "kernels/microkernel.h"
#include "kernels/rows.h"
#include "simd/dot_u4.h"

namespace vectile::VECTILE_TIER {

using std::int32_t;
using std::int8_t;
using std::uint32_t;
using std::uint8_t;
using Bytes = DotU4::Bytes;

// A register tile has at most kMr rows, and as many vectors of a strip's kNv as leave room for them
// and one broadcast: wide tiles share a broadcast, high ones an unpacked vector.
#if defined(VECTILE_TIER_avx512)
constexpr int kMr = 12, kNv = 2;
constexpr int tile_vectors(int) { return 2; }
#elif defined(VECTILE_TIER_avx2)
constexpr int kMr = 6, kNv = 4;
constexpr int tile_vectors(int rows) { return rows <= 2 ? 4 : 2; }
#else
constexpr int kMr = 2, kNv = 4;
constexpr int tile_vectors(int) { return 4; }
#endif
constexpr int kWidth = 4 * DotU4::lanes, kNr = kNv * DotU4::lanes;
constexpr i64 kPiece = 512;   // values along k unpacked at a time: whole groups, half an L1 cache
constexpr i64 kAhead = 8192;  // bytes from a strip's prefetch to its use; the next strip follows
static_assert(kS4Block == 4 * DotU4::steps);

static void gemm_s4_columns(int* nr) { *nr = kNr; }

constexpr i64 groups(i64 k, i64 group) { return (k + group - 1) / group; }

// f(start, length, index) for every group of a row.
template <class F>
VECTILE_INLINE void each_group(i64 k, i64 group, F f) {
  for (i64 s = 0, q = 0; s < k; s += group, ++q) f(s, k - s < group ? k - s : group, q);
}

template <class T>
constexpr T kTiny = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022);  // the least normal number

template <class T>
static void gemm_s4_quantize(const T* w, i64 n, i64 k, i64 group, bool symmetric, uint8_t* q,
                             T* scales, uint8_t* zeros) {
  using V = Vec<T>;
  const i64 count = groups(k, group);
  for (i64 i = 0; i < n; ++i, w += k, q += k, scales += count, zeros += count)
    each_group(k, group, [&](i64 start, i64 length, i64 index) {
      V low, high;
      row_each<T>(length, [&](i64 s, auto... m) VECTILE_LAMBDA {
        const V v = V::load(w + start + s, m...);
        low = min(low, v), high = max(high, v);
      });
      const T least = reduce_min(low), most = reduce_max(high);
      const T below = -least / T(8), above = most / T(7);
      T scale = symmetric ? (below > above ? below : above) : most / T(15) - least / T(15);
      if (scale < kTiny<T>) scale = T(1);
      const T zero = symmetric ? T(8) : reduce_max(round(V(-least / scale)));
      scales[index] = scale;
      zeros[index] = static_cast<uint8_t>(zero >= T(0) && zero <= T(15) ? zero : T(0));
      row_each<T>(length, [&](i64 s, auto... m) VECTILE_LAMBDA {
        const V v = round(V::load(w + start + s, m...) / V(scale)) + V(zero);
        clamp(v, V(T(0)), V(T(15))).store(q + start + s, m...);
      });
    });
}

template <class T>
static void gemm_s4_dequantize(const uint8_t* q, const T* scales, const uint8_t* zeros, i64 n,
                               i64 k, i64 group, T* w) {
  using V = Vec<T>;
  const i64 count = groups(k, group);
  for (i64 i = 0; i < n; ++i, w += k, q += k)
    each_group(k, group, [&](i64 start, i64 length, i64 index) {
      const V scale(scales[i * count + index]), zero(zeros ? T(zeros[i * count + index]) : T(8));
      row_each<T>(length, [&](i64 s, auto... m) VECTILE_LAMBDA {
        ((V::load(q + start + s, m...) - zero) * scale).store(w + start + s, m...);
      });
    });
}

// Four bytes of a strip for the values s to s + 7 of a column of length k.
static uint32_t eight(const uint8_t* q, i64 s, i64 k) {
  uint32_t half[2] = {0, 0};
  std::memcpy(half, q + s, static_cast<std::size_t>(k - s < 8 ? k - s : 8));
  return half[0] | half[1] << 4;
}

static void gemm_s4_pack(const uint8_t* q, i64 n, i64 k, uint8_t* strips) {
  for (i64 j = 0; j < n; j += kNr)
    for (i64 s = 0; s < s4_depth(k); s += 8)
      for (i64 c = j; c < j + kNr; ++c, strips += 4) {
        const uint32_t four = c < n && s < k ? eight(q + c * k, s, k) : 0;
        std::memcpy(strips, &four, 4);
      }
}

static void gemm_s4_unpack(const uint8_t* strips, i64 n, i64 k, uint8_t* q) {
  for (i64 j = 0; j < n; ++j, q += k) {
    const uint8_t* from = strips + j / kNr * kNr * (s4_depth(k) / 2) + j % kNr * 4;
    for (i64 s = 0; s < k; ++s) {
      const uint8_t both = from[s / 8 * 4 * kNr + s % 4];
      q[s] = s % 8 < 4 ? both & 15 : both >> 4;
    }
  }
}

// A group below 127 times the least normal number is taken for zeros, with scale 0. NaN or infinity
// makes the scale NaN.
template <class T>
static void gemm_s4_quantize_rows(const T* x, i64 m, i64 k, i64 group, int8_t* q, i64 q_row,
                                  T* scales, int32_t* minus_sums, i64 step) {
  using V = Vec<T>;
  for (i64 i = 0; i < m; ++i, x += k, q += q_row) {
    each_group(k, group, [&](i64 start, i64 length, i64 index) {
      V high;
      row_each<T>(length, [&](i64 s, auto... n) VECTILE_LAMBDA {
        high = max(high, abs(V::load(x + start + s, n...)));
      });
      const T range = reduce_max(high) / T(127);
      const V factor(range < kTiny<T> ? T(0) : T(1) / range);
      row_each<T>(length, [&](i64 s, auto... n) VECTILE_LAMBDA {
        (V::load(x + start + s, n...) * factor).store(q + start + s, n...);
      });
      int32_t sum = 0;
      for (i64 s = start; s < start + length; ++s) sum += q[s];
      scales[index * step + i] = range < kTiny<T> ? T(0) : range - (range - range);
      minus_sums[index * step + i] = -sum;
    });
    for (i64 s = k; s < s4_depth(k); ++s) q[s] = 0;
  }
}

// The strip's halves as bytes, in the order of k: what is read more than once is unpacked once.
static void widen(const uint8_t* strip, i64 k, uint8_t* bytes) {
  for (i64 s = 0; s < k; s += 8, strip += 4 * kNr, bytes += 8 * kNr)
    for (int v = 0; v < kNv; ++v) {
      const Bytes both = DotU4::load(strip + v * kWidth);
      DotU4::store(DotU4::low(both), bytes + v * kWidth);
      DotU4::store(DotU4::high(both), bytes + 4 * kNr + v * kWidth);
    }
}

// The products of MR rows of a with NV vectors of a strip over one block of k.
template <int MR, int NV, bool kPacked>
VECTILE_INLINE void multiply_block(DotU4 (&acc)[MR][NV], const int8_t* a, i64 a_row,
                                   const uint8_t* w) {
#pragma GCC unroll 4
  for (int s = 0; s < DotU4::steps / 2; ++s, a += 8, w += (kPacked ? 4 : 8) * kNr)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      if (kPacked && half == 0)
#pragma GCC unroll 4
        for (int line = 0; line < NV * kWidth; line += 64) __builtin_prefetch(w + kAhead + line);
      Bytes b[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        b[v] = DotU4::load(w + (kPacked ? 0 : half) * 4 * kNr + v * kWidth);
        if (kPacked) b[v] = half ? DotU4::high(b[v]) : DotU4::low(b[v]);
      }
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const Bytes x = DotU4::broadcast(a + i * a_row + 4 * half);
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[i][v].add_products(b[v], x);
      }
    }
}

// acc[c] += scale[c] a_scale sum for the lanes of one sum.
template <class T>
VECTILE_INLINE void add_scaled(VecDot sum, Vec<T> a_scale, const T* scale, T* acc) {
  using V = Vec<T>;
  if constexpr (sizeof(T) == 4) {
    fma(V::load(scale) * a_scale, to_float(sum), V::load(acc)).store(acc);
  } else {
    int32_t lanes[VecDot::lanes];
    sum.store(lanes);
    for (int c = 0; c < VecDot::lanes; ++c)
      fma(V::load(scale + c) * a_scale, V::load(lanes + c), V::load(acc + c)).store(acc + c);
  }
}

// acc (MR, nr) += the products of MR rows with a strip from `first` to `end` along k, whole groups
// and at most one shorter one.
template <class T, int MR, bool kPacked>
static void panel(const GemmS4<T>& g, i64 row, i64 first, i64 end, const uint8_t* w,
                  const T* scales, const uint8_t* zeros, T* acc) {
  constexpr int nv = tile_vectors(MR);
  constexpr i64 step = kS4Block * kNr / (kPacked ? 2 : 1);
  const int8_t* a = g.a + row * g.a_row;
  for (i64 s = first, q = first / g.group; s < end; s += g.group, ++q) {
    const i64 blocks = (end - s < g.group ? end - s : g.group) / kS4Block;
    const T* a_scale = g.a_scales + q * g.m + row;
    const int32_t* minus_sum = g.minus_sums + q * g.m + row;
    for (int v0 = 0; v0 < kNv; v0 += nv) {
      VecDot sums[MR][nv];
#pragma GCC unroll 4
      for (int v = 0; v < nv; ++v) {
        const VecDot zero =
            zeros ? load_bytes(zeros + q * kNr + (v0 + v) * VecDot::lanes) : VecDot(8);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i) sums[i][v] = zero * VecDot(minus_sum[i]);
      }
      for (i64 block = 0; block < blocks; ++block) {
        DotU4 part[MR][nv];
        multiply_block<MR, nv, kPacked>(part, a + s + block * kS4Block, g.a_row,
                                        w + block * step + v0 * kWidth);
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
          for (int v = 0; v < nv; ++v) sums[i][v] = sums[i][v] + part[i][v].sum();
      }
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
        for (int v = 0; v < nv; ++v) {
          const int c = (v0 + v) * VecDot::lanes;
          add_scaled(sums[i][v], Vec<T>(a_scale[i]), scales + q * kNr + c, acc + i * kNr + c);
        }
    }
    w += blocks * step;
  }
}

template <class T>
using Panel = void (*)(const GemmS4<T>&, i64, i64, i64, const uint8_t*, const T*, const uint8_t*,
                       T*);

template <class T>
struct PanelTable {
  Panel<T> at[2][kMr];
  template <int MR>
  constexpr void fill() {
    at[0][MR - 1] = &panel<T, MR, false>, at[1][MR - 1] = &panel<T, MR, true>;
    if constexpr (MR > 1) fill<MR - 1>();
  }
  constexpr PanelTable() : at{} { fill<kMr>(); }
};

template <class T>
static void gemm_s4_linear(const GemmS4<T>& g, const GemmBlock& block) {
  using V = Vec<T>;
  static constexpr PanelTable<T> table;
  alignas(64) T acc[kS4Rows * kNr];
  alignas(64) uint8_t bytes[kPiece * kNr];
  const i64 rows = block.m1 - block.m0, depth = s4_depth(g.k), count = groups(g.k, g.group);
  const Panels panels(rows, kMr);
  const bool packed = panels.count == 1;
  const i64 piece = packed ? depth : kPiece;
  for (i64 j = block.n0; j < block.n1; j += kNr) {
    const int columns = static_cast<int>(block.n1 - j < kNr ? block.n1 - j : kNr);
    const uint8_t* strip = g.strips + j * (depth / 2);
    for (i64 e = 0; e < rows * kNr; ++e) acc[e] = T(0);
    for (i64 first = 0; first < depth; first += piece) {
      const i64 end = first + piece < depth ? first + piece : depth;
      const uint8_t* w = strip + first * kNr / 2;
      if (!packed) {
        widen(w, end - first, bytes);
        w = bytes;
      }
      for (i64 p = 0; p < panels.count; ++p)
        table.at[packed][panels.rows(p) - 1](
            g, block.m0 + panels.start(p), first, end, w, g.scales + j * count,
            g.zeros ? g.zeros + j * count : nullptr, acc + panels.start(p) * kNr);
    }
    T* to = g.y + block.m0 * g.y_row + j;
    for (i64 i = 0; i < rows; ++i)
      row_each<T>(columns, [&](i64 c, auto... n) VECTILE_LAMBDA {
        V::load(acc + i * kNr + c, n...).store(to + i * g.y_row + c, n...);
      });
    finish_block(to, g.y_row, rows, columns, g.bias ? g.bias + j : nullptr, g.activation,
                 g.residual ? g.residual + (to - g.y) : nullptr);
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
