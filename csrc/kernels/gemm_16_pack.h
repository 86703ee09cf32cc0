// How both operands of a 16-bit product come into the form its tiles read: see Gemm16Format. By way
// of float32 in a near cache, except where the numbers are there already in a readable order.
#pragma once

#include <cstring>

#include "kernels/gemm_types.h"
#include "kernels/packing.h"
#include "simd/float16.h"

namespace vectile::VECTILE_TIER {

constexpr i64 kPackSteps = 64;  // of K converted at a time

// f(p) with p of the type that `dtype` names: float32, float16 or bfloat16.
template <class F>
VECTILE_INLINE void with_stored(const void* p, DType dtype, F f) {
  if (dtype == DType::f16)
    f(static_cast<const Float16*>(p));
  else if (dtype == DType::bf16)
    f(static_cast<const BFloat16*>(p));
  else
    f(static_cast<const float*>(p));
}

// to[l * to_line + s] = x[l * line + s * step] as float32 for l < lines <= Vec<float>::lanes, s <
// k. May write a vector beyond the end of a line.
template <class S>
static void gather_lines(const S* x, i64 line, i64 step, int lines, i64 k, float* to, i64 to_line) {
  using V = Vec<float>;
  constexpr int w = V::lanes;
  if (line == 1 && step != 1) {
    for (i64 s = 0; s < k; s += w) {
      const int count = static_cast<int>(k - s < w ? k - s : w);
      transpose_block(x + s * step, step, count, lines, to + s, to_line, count);
    }
    return;
  }
  for (int l = 0; l < lines; ++l, x += line, to += to_line) {
    if (step == 1) {
      i64 s = 0;
      for (; s + w <= k; s += w) load_as<V>(x + s).store(to + s);
      if (s < k) load_as<V>(x + s, static_cast<int>(k - s)).store(to + s);
    } else {
      for (i64 s = 0; s < k; s += w) {
        const int count = static_cast<int>(k - s < w ? k - s : w);
        S lanes[w] = {};
        for (int i = 0; i < count; ++i) lanes[i] = x[(s + i) * step];
        load_as<V>(lanes).store(to + s);
      }
    }
  }
}

template <class Unit, class S>
static void rows_16(const S* a, i64 row, i64 col, i64 m, i64 k, uint16_t* dst, i64 dst_row) {
  constexpr int w = Vec<float>::lanes;
  constexpr i64 line = kPackSteps + w;
  const i64 depth = (k + Unit::k_step - 1) / Unit::k_step * Unit::k_step;
  if (std::is_same_v<S, typename Unit::Stored> && col == 1) {
    for (i64 i = 0; i < m; ++i, a += row, dst += dst_row) {
      std::memcpy(dst, a, static_cast<std::size_t>(k) * 2);
      for (i64 s = k; s < depth; ++s) dst[s] = 0;
    }
    return;
  }
  alignas(64) float lines[w * line];
  alignas(64) uint16_t narrow[kPackSteps];
  for (i64 i = 0; i < m; i += w)
    for (i64 s = 0; s < depth; s += kPackSteps) {
      const int count = static_cast<int>(m - i < w ? m - i : w);
      const i64 live = k - s < kPackSteps ? k - s : kPackSteps;
      const i64 size = depth - s < kPackSteps ? depth - s : kPackSteps;
      gather_lines(a + i * row + s * col, row, col, count, live, lines, line);
      for (int l = 0; l < count; ++l) {
        float* from = lines + l * line;
        for (i64 t = live; t < size; ++t) from[t] = 0;
        uint16_t* to = dst + (i + l) * dst_row + s;
        if (size == kPackSteps) {
          Unit::narrow(from, size, to);
        } else {
          Unit::narrow(from, kPackSteps, narrow);
          std::memcpy(to, narrow, static_cast<std::size_t>(size) * 2);
        }
      }
    }
}

// Rows of B, contiguous, that have the stored type: `steps` of them, whole groups of neighbours.
template <class Unit>
static void copy_strip(const uint16_t* b, i64 row, i64 steps, uint16_t* strip) {
  for (i64 s = 0; s < steps; s += Unit::together, b += Unit::together * row, strip += 64)
    if constexpr (Unit::together == 2)
      interleave_pairs(b, b + row, strip);
    else
      std::memcpy(strip, b, 2 * Unit::nr);
}

// `steps` of K of a strip of `columns` columns, of which `live` exist.
template <class Unit, class S>
static void pack_strip(const S* b, i64 row, i64 col, int columns, i64 live, i64 steps,
                       uint16_t* strip) {
  constexpr bool stored = std::is_same_v<S, typename Unit::Stored>;
  static_assert(Unit::nr * Unit::together == 64);
  const auto* words = reinterpret_cast<const uint16_t*>(b);
  i64 done = 0;
  if (stored && col == 1 && columns == Unit::nr) {
    done = live / Unit::together * Unit::together;
    copy_strip<Unit>(words, row, done, strip);
  } else if (stored && Unit::together == 2 && row == 1 && col % 2 == 0) {  // pairs are there
    done = live / 2 * 2;
    pack_panel<Vec<float>, Unit::nr>(reinterpret_cast<const float*>(words), col / 2, 1, columns,
                                     done / 2, reinterpret_cast<float*>(strip));
  }
  if (done == steps) return;
  alignas(64) float panel[kPackSteps * Unit::nr];
  pack_panel<Vec<float>, Unit::nr>(b + done * row, col, row, columns, live - done, panel);
  for (i64 i = (live - done) * Unit::nr; i < (steps - done) * Unit::nr; ++i) panel[i] = 0;
  Unit::narrow_strip(panel, steps - done, strip + done * Unit::nr);
}

template <class Unit, class S>
static void pack_16(const S* b, i64 row, i64 col, i64 k, i64 n, uint16_t* strips) {
  const i64 depth = (k + Unit::k_step - 1) / Unit::k_step * Unit::k_step;
  const auto pack = [&](i64 j, i64 s) {
    const i64 steps = depth - s < kPackSteps ? depth - s : kPackSteps;
    const i64 live = k - s < steps ? k - s : steps;
    pack_strip<Unit>(b + s * row + j * col, row, col,
                     static_cast<int>(n - j < Unit::nr ? n - j : Unit::nr), live, steps,
                     strips + j * depth + s * Unit::nr);
  };
  if (col == 1) {  // long runs of each row
    for (i64 s = 0; s < depth; s += kPackSteps)
      for (i64 j = 0; j < n; j += Unit::nr) pack(j, s);
  } else {
    // What lies ahead is asked for: of so many lines no prefetcher knows the next.
    constexpr i64 ahead = 8 * kPackSteps, step = 64 / i64(sizeof(S));
    for (i64 j = 0; j < n; j += Unit::nr)
      for (i64 s = 0; s < depth; s += kPackSteps) {
        const i64 later = s + ahead < k ? s + ahead : s + ahead - k;
        const i64 from = s + ahead < k ? j : j + Unit::nr;
        for (i64 c = from; row == 1 && later < k && c < n && c < from + Unit::nr; ++c)
          for (i64 t = 0; t < kPackSteps; t += step) __builtin_prefetch(b + c * col + later + t);
        pack(j, s);
      }
  }
}

}  // namespace vectile::VECTILE_TIER
