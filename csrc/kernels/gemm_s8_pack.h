// How both operands of an 8-bit product come into the form its tiles read.
#pragma once

#include "kernels/gemm_s8_tile.h"
#include "kernels/gemm_s8_types.h"
#include "kernels/packing.h"

namespace vectile::VECTILE_TIER {

using std::int16_t;
using std::int8_t;
using std::uint32_t;

#if defined(VECTILE_TIER_amx)
constexpr int kStep = 16;
#else
constexpr int kStep = 1;
#endif
constexpr i64 groups(i64 k) { return (k + 4 * kStep - 1) / (4 * kStep) * kStep; }

// Stored values of zero: A's of pairs are kept lower by what B's bytes, unsigned there, are higher.
constexpr int kLeftZero = kPairs ? -128 : 0;
constexpr uint8_t kRightZero = kPairs ? 128 : 0;
constexpr uint8_t flip_of(bool is_signed) { return is_signed == kPairs ? 128 : 0; }

// One stored row of A from its unsigned bytes, which lie at bytes_of(row): row_terms and row_sums
// (or null) of it.
static uint8_t* bytes_of(int32_t* row, i64 k) {
  return reinterpret_cast<uint8_t*>(row) + (kPairs ? 4 * groups(k) : 0);
}

template <class V = VecDot>
static void store_row(int32_t* row, i64 k, int zero, int32_t* term, int32_t* sum) {
  const uint8_t* q = bytes_of(row, k);
  if constexpr (V::pairs) {
    constexpr int w = 2 * V::lanes;
    auto* to = reinterpret_cast<int16_t*>(row);
    const V centre = V::words(-zero), below = V::words(kLeftZero);
    V terms, sums;
    i64 s = 0;
    for (; s + w <= k; s += w) {  // in place: the bytes lie at the end
      const V v = add_words(V::widen(q + s), centre);
      terms = terms + multiply_words(v, v.odd_elements());
      sums = sums + multiply_words(v, V::words(1));
      add_words(v, below).store(row + s / 2);
    }
    alignas(64) int16_t rest[w] = {};
    for (i64 i = s; i < k; ++i) rest[i - s] = static_cast<int16_t>(q[i] - zero);
    for (i64 i = s; i < 4 * groups(k); ++i) to[i] = static_cast<int16_t>(rest[i - s] + kLeftZero);
    const V v = V::load(reinterpret_cast<const int32_t*>(rest));
    terms = terms + multiply_words(v, v.odd_elements());
    sums = sums + multiply_words(v, V::words(1));
    *term = reduce_sum(terms);
    if (sum) *sum = reduce_sum(sums);
  } else {
    auto* bytes = reinterpret_cast<uint8_t*>(row);
    for (i64 s = k; s < 4 * groups(k); ++s) bytes[s] = 0;
    *term = zero;
    if (!sum) return;
    uint32_t total = 0;
    for (i64 s = 0; s < k; ++s) total += q[s];
    *sum = static_cast<int32_t>(total - static_cast<uint32_t>(k) * static_cast<uint32_t>(zero));
  }
}

static void gemm_s8_rows(const void* a, bool is_signed, i64 row, i64 col, i64 m, i64 k,
                         const int32_t* a_zero, int32_t* dst, i64 dst_row, int32_t* row_terms,
                         int32_t* row_sums) {
  const uint8_t flip = is_signed ? 128 : 0;
  for (i64 i = 0; i < m; ++i, dst += dst_row) {
    const uint8_t* x = static_cast<const uint8_t*>(a) + i * row;
    uint8_t* q = bytes_of(dst, k);
    if (col == 1)
      for (i64 s = 0; s < k; ++s) q[s] = x[s] ^ flip;
    else
      for (i64 s = 0; s < k; ++s) q[s] = x[s * col] ^ flip;
    store_row(dst, k, (a_zero ? a_zero[i] : 0) + flip, row_terms + i,
              row_sums ? row_sums + i : nullptr);
  }
}

// The range of a row and zero; false when it holds NaN or infinity.
template <class T>
static bool range_of(const T* x, i64 k, T& least, T& most) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  V low[2], high[2], finite[2];
  const auto meet = [&](int u, V v) VECTILE_LAMBDA {
    low[u] = min_number(v, low[u]), high[u] = max_number(v, high[u]);
    finite[u] = v * V(T(0)) + finite[u];
  };
  i64 s = 0;
  for (; s + 2 * w <= k; s += 2 * w) meet(0, V::load(x + s)), meet(1, V::load(x + s + w));
  for (; s < k; s += w) meet(0, V::load(x + s, static_cast<int>(k - s < w ? k - s : w)));
  least = reduce_min(min(low[0], low[1]));
  most = reduce_max(max(high[0], high[1]));
  return reduce_add(finite[0] + finite[1]) == T(0);
}

// |x - scale (q - zero)| <= scale / 2 up to rounding, where the range covers x. A row below 255
// (127) times the least normal number is taken for zeros, with scale 0; NaN or infinity in a row
// makes its scale NaN.
template <class T>
static void gemm_s8_quantize_rows(const T* x, i64 row, i64 m, i64 k, const QuantizeRows& how,
                                  int32_t* dst, i64 dst_row, T* scales, int32_t* row_terms,
                                  int32_t* row_sums) {
  using V = Vec<T>;
  constexpr i64 w = V::lanes;
  constexpr T tiny = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022);
  for (i64 i = 0; i < m; ++i, x += row, dst += dst_row) {
    T scale = static_cast<T>(how.scale), zero = static_cast<T>(how.zero);
    if (how.range != QuantizeRows::fixed) {
      T least, most;
      const bool finite = range_of(x, k, least, most);
      if (how.range == QuantizeRows::symmetric) {
        scale = (most > -least ? most : -least) / T(127), zero = 128;
      } else {
        scale = most / T(255) - least / T(255);  // finite for finite x
        zero = scale < tiny ? T(0) : reduce_max(round(V(-least / scale)));
      }
      if (!finite) scale = static_cast<T>(__builtin_nan("")), zero = 0;
      if (scale < tiny) scale = 0;
    }
    const T inverse = scale > T(0) ? T(1) / scale : T(0);
    scales[i] = scale;
    uint8_t* q = bytes_of(dst, k);
    const V shift(zero), factor(inverse);
    i64 s = 0;
    for (; s + w <= k; s += w) fma(V::load(x + s), factor, shift).store(q + s);
    if (s < k) {
      const int tail = static_cast<int>(k - s);
      fma(V::load(x + s, tail), factor, shift).store(q + s, tail);
    }
    store_row(dst, k, static_cast<int>(zero), row_terms + i, row_sums ? row_sums + i : nullptr);
  }
}

// Groups of B: up to kPackColumns columns, a whole cache line of its rows, at a time.
constexpr int kPackColumns = kNr > 64 ? kNr : 64 / kNr * kNr;

static void pack_rows(const uint8_t* b, i64 row, i64 columns, i64 k, uint8_t flip,
                      int32_t* strips) {
  const i64 depth = groups(k);
  uint8_t none[kPackColumns], edge[4][kPackColumns];
  const bool whole = columns % kInterleaved == 0;
  for (auto& byte : none) byte = kRightZero ^ flip;
  for (i64 g = 0; g < depth; ++g) {
    const uint8_t* rows[4];
    for (int t = 0; t < 4; ++t) {
      rows[t] = 4 * g + t < k ? b + (4 * g + t) * row : none;
      if (whole || rows[t] == none) continue;
      for (i64 j = 0; j < kPackColumns; ++j) edge[t][j] = j < columns ? rows[t][j] : none[j];
      rows[t] = edge[t];
    }
    for (i64 j = 0; j < columns; j += kInterleaved)
      interleave_rows(rows, j, flip, strips + j / kNr * kNr * depth + g * kNr + j % kNr);
    for (i64 j = (columns + kInterleaved - 1) / kInterleaved * kInterleaved; j % kNr; ++j)
      strips[j / kNr * kNr * depth + g * kNr + j % kNr] =
          static_cast<int32_t>(0x01010101u * kRightZero);
  }
}

// The same for any strides: lines of pieces of k, transposed.
static void pack_lines(const uint8_t* b, i64 row, i64 col, int columns, i64 k, uint8_t flip,
                       int32_t* strip) {
  constexpr i64 piece = 64, width = piece + 1;  // odd: lines fall into different cache sets
  int32_t lines[kNr * width];
  const i64 depth = groups(k);
  for (i64 g = 0; g < depth; g += piece) {
    const i64 count = depth - g < piece ? depth - g : piece;
    const i64 live = k - 4 * g < 4 * count ? k - 4 * g : 4 * count;  // may be negative
    for (int j = 0; j < columns; ++j) {
      const uint8_t* x = b + 4 * g * row + j * col;
      auto* to = reinterpret_cast<uint8_t*>(lines + j * width);
      if (row == 1)
        for (i64 s = 0; s < live; ++s) to[s] = x[s] ^ flip;
      else
        for (i64 s = 0; s < live; ++s) to[s] = x[s * row] ^ flip;
      for (i64 s = live < 0 ? 0 : live; s < 4 * count; ++s) to[s] = kRightZero;
      if (!kPairs) continue;
      auto* words = reinterpret_cast<uint32_t*>(lines + j * width);
      for (i64 s = 0; s < count; ++s)
        words[s] = (words[s] & 0xff0000ffu) | (words[s] & 0xff00u) << 8 | (words[s] >> 8 & 0xff00u);
    }
    pack_panel<VecDot, kNr>(lines, width, 1, columns, count, strip + g * kNr);
  }
}

// What a row of ones (of zeros, for pairs) makes of a strip.
static void column_terms_of(const int32_t* strip, i64 depth, int32_t* terms) {
  constexpr i64 piece = 64;
  int32_t probe[piece * kLeft];
  for (auto& element : probe) element = kPairs ? static_cast<int32_t>(0xff80ff80u) : 0x01010101;
  const auto tile = tile_s8<Strip::packed>(1, kNr);
  for (i64 g = 0; g < depth; g += piece)
    tile(depth - g < piece ? depth - g : piece, probe, 0, strip + g * kNr, terms, g > 0);
  if (depth == 0) tile(0, probe, 0, strip, terms, false);
}

static void gemm_s8_pack(const void* b, bool is_signed, i64 row, i64 col, i64 k, i64 n,
                         int32_t* strips, int32_t* column_terms) {
  const auto* bytes = static_cast<const uint8_t*>(b);
  const i64 depth = groups(k);
  const uint8_t flip = flip_of(is_signed);
  for (i64 j = 0; j < n; j += kPackColumns) {
    const i64 columns = n - j < kPackColumns ? n - j : kPackColumns;
    if (col == 1) pack_rows(bytes + j, row, columns, k, flip, strips + j * depth);
    for (i64 c = j; c < j + columns; c += kNr) {
      const int width = static_cast<int>(j + columns - c < kNr ? j + columns - c : kNr);
      if (col != 1) pack_lines(bytes + c * col, row, col, width, k, flip, strips + c * depth);
      int32_t terms[kNr];
      column_terms_of(strips + c * depth, depth, terms);
      for (int t = 0; t < width; ++t) column_terms[c + t] = terms[t];
    }
  }
}

static void gemm_s8_unpack(const int32_t* strips, i64 k, i64 n, int8_t* b) {
  constexpr int order[] = {0, kPairs ? 2 : 1, kPairs ? 1 : 2, 3};
  for (i64 j = 0; j < n; ++j) {
    const int32_t* line = strips + j / kNr * kNr * groups(k) + j % kNr;
    for (i64 s = 0; s < k; ++s) {
      const auto* group = reinterpret_cast<const uint8_t*>(line + s / 4 * kNr);
      b[j * k + s] = static_cast<int8_t>(group[order[s % 4]] ^ kRightZero);
    }
  }
}

}  // namespace vectile::VECTILE_TIER
