// gemm_s8: products of 8-bit integers, exact in int32.
// The register tile is the one of gemm with another multiply-add: a 32-bit element holds `group`
// neighbours along k. Tiers whose instruction wants unsigned times signed bytes store signed A as
// a + 128 and unsigned B as b - 128; tiers without it store int16. Zero points and these offsets
// are taken out of the finished tile (Jacob et al., arXiv 1712.05877, equation 7).
#include "kernels/epilogue.h"
#include "kernels/gemm_s8_types.h"
#include "kernels/microkernel.h"
#include "kernels/packing.h"
#include "simd/dot.h"

namespace vectile::VECTILE_TIER {

using std::int32_t;
using std::int8_t;
using std::uint32_t;
using std::uint8_t;

constexpr int kMr = Tile<VecDot>::mr, kNr = Tile<VecDot>::nr, kGroup = VecDot::group;
constexpr bool kBytes = kGroup == 4;
// The stored type of each operand: bytes as VPDPBUSD takes them, or int16.
template <bool kBytesStored, class Byte>
struct StoredType {
  using type = Byte;
};
template <class Byte>
struct StoredType<false, Byte> {
  using type = std::int16_t;
};
using StoredA = StoredType<kBytes, uint8_t>::type;
using StoredB = StoredType<kBytes, int8_t>::type;

static void gemm_s8_format(GemmS8Format* format) {
  *format = {kMr, kNr, kGroup, kBytes ? 128 : 0, kBytes ? -128 : 0};
}

constexpr i64 groups(i64 k) { return (k + kGroup - 1) / kGroup; }

// One line of k values into whole groups, zeros behind them.
template <class Stored, class Byte>
static void store_line(const Byte* x, i64 step, i64 k, int32_t offset, int32_t* dst) {
  auto* to = reinterpret_cast<Stored*>(dst);
  if (step == 1)
    for (i64 s = 0; s < k; ++s) to[s] = static_cast<Stored>(x[s] + offset);
  else
    for (i64 s = 0; s < k; ++s) to[s] = static_cast<Stored>(x[s * step] + offset);
  for (i64 s = k; s < groups(k) * kGroup; ++s) to[s] = 0;
}

static void gemm_s8_rows(const void* a, bool is_signed, i64 row, i64 col, i64 m, i64 k,
                         int32_t* dst, i64 dst_row, int32_t* row_sums) {
  for (i64 i = 0; i < m; ++i, dst += dst_row) {
    if (is_signed)
      store_line<StoredA>(static_cast<const int8_t*>(a) + i * row, col, k, kBytes ? 128 : 0, dst);
    else
      store_line<StoredA>(static_cast<const uint8_t*>(a) + i * row, col, k, 0, dst);
    if (!row_sums) continue;
    const auto* stored = reinterpret_cast<const StoredA*>(dst);
    uint32_t sum = 0;
    for (i64 s = 0; s < k; ++s) sum += static_cast<uint32_t>(static_cast<int32_t>(stored[s]));
    row_sums[i] = static_cast<int32_t>(sum);
  }
}

// scale (q - zero) covers [min(x, 0), max(x, 0)] with q in 0..255: |x - scale (q - zero)| <= scale
// / 2 up to rounding. A row below 255 times the least normal number is taken for zeros, with scale
// 0; NaN or infinity in a row reaches its scale.
template <class T>
static void gemm_s8_quantize_rows(const T* x, i64 row, i64 m, i64 k, int32_t* dst, i64 dst_row,
                                  T* scales, int32_t* zeros) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  for (i64 i = 0; i < m; ++i, x += row, dst += dst_row) {
    V low, high;
    i64 s = 0;
    for (; s + w <= k; s += w) {
      const V v = V::load(x + s);
      low = min(low, v), high = max(high, v);
    }
    if (s < k) {
      const V v = V::load(x + s, static_cast<int>(k - s));
      low = min(low, v), high = max(high, v);
    }
    constexpr T tiny = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022);
    const T least = reduce_min(low);
    const T range = reduce_max(high) / T(255) - least / T(255);  // finite for finite x
    const T scale = range < tiny ? T(0) : range, inverse = scale > T(0) ? T(1) / scale : T(0);
    const T zero = reduce_max(round(V(-least * inverse)));
    scales[i] = scale;
    zeros[i] = zero >= T(0) && zero <= T(255) ? static_cast<int32_t>(zero) : 0;
    // Bytes go to the end of the line, from where int16 tiers widen them in place.
    auto* line = reinterpret_cast<uint8_t*>(dst);
    uint8_t* q = line + (kBytes ? 0 : k);
    const V shift(zero), factor(inverse);
    for (s = 0; s + w <= k; s += w) fma(V::load(x + s), factor, shift).store(q + s);
    if (s < k) {
      const int tail = static_cast<int>(k - s);
      fma(V::load(x + s, tail), factor, shift).store(q + s, tail);
    }
    auto* stored = reinterpret_cast<StoredA*>(dst);
    if (!kBytes)
      for (s = 0; s < k; ++s) stored[s] = q[s];
    for (s = k; s < groups(k) * kGroup; ++s) stored[s] = 0;
  }
}

// Strips and the tiles in memory are padded to whole vectors, so that tails need no masks.
static TileFunction<int32_t> whole_tile(int rows, int columns) {
  constexpr int w = VecDot::lanes;
  return tile_function<VecDot>(rows, (columns + w - 1) / w * w);
}

constexpr i64 kLineGroups = 64;  // k is packed in pieces of so many groups when B runs along k

// `depth` groups of `columns` lines of B, each contiguous or strided along k, into a strip.
template <class Byte>
static void pack_lines(const Byte* b, i64 row, i64 col, int columns, i64 k, int32_t offset,
                       int32_t* strip) {
  constexpr i64 width =
      kLineGroups + 1;  // one more than a power of two: rows in different cache sets
  int32_t lines[kNr * width];
  for (i64 s = 0; s < k; s += kLineGroups * kGroup) {
    const i64 depth = k - s < kLineGroups * kGroup ? k - s : kLineGroups * kGroup;
    for (int j = 0; j < columns; ++j)
      store_line<StoredB>(b + s * row + j * col, row, depth, offset, lines + j * width);
    pack_panel<VecDot, kNr>(lines, width, 1, columns, groups(depth), strip + s / kGroup * kNr);
  }
}

// The same when B is contiguous along n: kGroup rows at a time, interleaved.
template <class Byte>
static void pack_rows(const Byte* b, i64 row, int columns, i64 k, int32_t offset, int32_t* strip) {
  auto* to = reinterpret_cast<StoredB*>(strip);
  for (i64 s = 0; s < k; s += kGroup, b += kGroup * row, to += kGroup * kNr) {
    if (columns == kNr && s + kGroup <= k) {
      for (int j = 0; j < kNr; ++j)
#pragma GCC unroll 4
        for (int t = 0; t < kGroup; ++t)
          to[j * kGroup + t] = static_cast<StoredB>(b[t * row + j] + offset);
    } else {
      for (int j = 0; j < kNr; ++j)
        for (int t = 0; t < kGroup; ++t)
          to[j * kGroup + t] =
              static_cast<StoredB>(j < columns && s + t < k ? b[t * row + j] + offset : 0);
    }
  }
}

static void gemm_s8_pack(const void* b, bool is_signed, i64 row, i64 col, i64 k, i64 n,
                         int32_t* strips, int32_t* column_sums) {
  const int32_t ones = kBytes ? 0x01010101 : 0x00010001;
  for (i64 j = 0; j < n; j += kNr) {
    const int columns = static_cast<int>(n - j < kNr ? n - j : kNr);
    int32_t* strip = strips + j * groups(k);
    const auto pack = [&](const auto* bytes, int32_t offset) {
      if (col == 1)
        pack_rows(bytes + j, row, columns, k, offset, strip);
      else
        pack_lines(bytes + j * col, row, col, columns, k, offset, strip);
    };
    if (is_signed)
      pack(static_cast<const int8_t*>(b), 0);
    else
      pack(static_cast<const uint8_t*>(b), kBytes ? -128 : 0);
    int32_t sums[kNr];
    whole_tile(1, columns)(groups(k), &ones, 0, 0, strip, kNr, sums, kNr, 0, false);
    for (int c = 0; c < columns; ++c) column_sums[j + c] = sums[c];
  }
}

static void gemm_s8_unpack(const int32_t* strips, i64 k, i64 n, int8_t* b) {
  for (i64 j = 0; j < n; ++j) {
    const auto* strip =
        reinterpret_cast<const StoredB*>(strips + j / kNr * kNr * groups(k)) + j % kNr * kGroup;
    for (i64 s = 0; s < k; ++s)
      b[j * k + s] = static_cast<int8_t>(strip[s / kGroup * kNr * kGroup + s % kGroup]);
  }
}

// Takes zero points out of a tile of rows x columns at (i, j) of C.
static void compensate(const GemmS8& g, i64 i, i64 j, int rows, int columns, int32_t* tile) {
  constexpr int w = VecDot::lanes;
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < columns; c += w) {
      const int n = columns - c < w ? columns - c : w;
      int32_t* p = tile + r * kNr + c;
      VecDot v = VecDot::load(p);
      if (g.a_zero) v = v - VecDot(g.a_zero[i + r]) * VecDot::load(g.column_terms + j + c, n);
      if (g.b_zero) v = v - VecDot(g.row_sums[i + r]) * VecDot::load(g.b_zero + j + c, n);
      v.store(p);
    }
}

// finish(i, j, rows, columns, tile) takes every exact tile, kNr columns apart, to its destination.
template <class Finish>
VECTILE_INLINE void multiply_s8(const GemmS8& g, const GemmBlock& block, Finish finish) {
  alignas(64) int32_t tile[kMr * kNr];
  const Panels panels(block.m1 - block.m0, kMr);
  for (i64 j = block.n0; j < block.n1; j += kNr) {
    const int columns = static_cast<int>(block.n1 - j < kNr ? block.n1 - j : kNr);
    const int32_t* strip = g.b + j * groups(g.k);
    for (i64 p = 0; p < panels.count; ++p) {
      const i64 i = block.m0 + panels.start(p);
      const int rows = panels.rows(p);
      whole_tile(rows, columns)(groups(g.k), g.a + i * g.a_row, g.a_row, 1, strip, kNr, tile, kNr,
                                0, false);
      if (g.a_zero || g.b_zero) compensate(g, i, j, rows, columns, tile);
      finish(i, j, rows, columns, tile);
    }
  }
}

static void gemm_s8_exact(const GemmS8& g, const GemmBlock& block, int32_t* c, i64 c_row) {
  constexpr int w = VecDot::lanes;
  multiply_s8(g, block, [=](i64 i, i64 j, int rows, int columns, const int32_t* tile) {
    for (int r = 0; r < rows; ++r)
      for (int k = 0; k < columns; k += w)
        VecDot::load(tile + r * kNr + k)
            .store(c + (i + r) * c_row + j + k, columns - k < w ? columns - k : w);
  });
}

template <class T>
static void gemm_s8_linear(const GemmS8& g, const GemmBlock& block, const T* a_scale,
                           const T* b_scale, const T* bias, Activation activation, T* y,
                           i64 y_row) {
  using V = Vec<T>;
  constexpr int w = V::lanes;
  multiply_s8(g, block, [=](i64 i, i64 j, int rows, int columns, const int32_t* tile) {
    T* to = y + i * y_row + j;
    for (int r = 0; r < rows; ++r)
      for (int k = 0; k < columns; k += w) {
        const int n = columns - k < w ? columns - k : w;
        const V scale = V(a_scale[i + r]) * V::load(b_scale + j + k, n);
        (V::load(tile + r * kNr + k, n) * scale).store(to + r * y_row + k, n);
      }
    finish_block(to, y_row, rows, columns, bias ? bias + j : nullptr, activation);
  });
}

template <class Byte>
static void requantize(const GemmS8& g, const GemmBlock& block, const float* a_scale,
                       const float* b_scale, float zero, Byte* y, i64 y_row) {
  using V = Vec<float>;
  constexpr int w = V::lanes;
  multiply_s8(g, block, [=](i64 i, i64 j, int rows, int columns, const int32_t* tile) {
    for (int r = 0; r < rows; ++r)
      for (int k = 0; k < columns; k += w) {
        const int n = columns - k < w ? columns - k : w;
        const V scale = V(a_scale[i + r]) * V::load(b_scale + j + k, n);
        const V q = round(V::load(tile + r * kNr + k, n) * scale) + V(zero);
        q.store(y + (i + r) * y_row + j + k, n);
      }
  });
}

static void gemm_s8_requantize(const GemmS8& g, const GemmBlock& block, const float* a_scale,
                               const float* b_scale, float zero, bool is_signed, void* y,
                               i64 y_row) {
  if (is_signed)
    requantize(g, block, a_scale, b_scale, zero, static_cast<int8_t*>(y), y_row);
  else
    requantize(g, block, a_scale, b_scale, zero, static_cast<uint8_t*>(y), y_row);
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
