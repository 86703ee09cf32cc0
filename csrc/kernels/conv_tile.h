// The register tile of a convolution whose vectors of pixels lie in rows of the image: B is read
// where it is, without a packed strip.
#pragma once

#include "kernels/conv_types.h"
#include "kernels/microkernel.h"

namespace vectile::VECTILE_TIER {

// Steps of K in the image: vector j of step (c, t) starts at at[j] + c * c_pitch + tap[t]; the
// first step is (0, t0). With `bias` one more step is met with ones.
template <class E>
struct Steps {
  const E* at[Tile<Vec<E>>::nv];
  const i64* tap;
  i64 taps, c_pitch, t0, count;
  bool bias;
};

template <class E>
using StepsFunction = void (*)(const Steps<E>& steps, const E* a, E* c, i64 c_row, bool add);

// C = A B, or C += A B when `add`; A is a panel of Tile<V>::mr rows.
template <class V, int MR, int NV>
static void steps_tile(const Steps<typename V::value_type>& steps, const typename V::value_type* a,
                       typename V::value_type* c, i64 c_row, bool add) {
  using E = typename V::value_type;
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) __builtin_prefetch(c + i * c_row + j * V::lanes, 0, 2);
  V acc[MR][NV];
  const E* at[NV];
#pragma GCC unroll 16
  for (int j = 0; j < NV; ++j) at[j] = steps.at[j];
  const i64 *const tap = steps.tap, taps = steps.taps, c_pitch = steps.c_pitch;
  i64 t = steps.t0;
  for (i64 k = steps.count; k > 0; --k, a += Tile<V>::mr) {
    const i64 offset = tap[t];
    V bv[NV];
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) bv[j] = V::load(at[j] + offset);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const V av(a[i]);
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) acc[i][j] = multiply_add(av, bv[j], acc[i][j]);
    }
    if (++t == taps) {
      t = 0;
#pragma GCC unroll 16
      for (int j = 0; j < NV; ++j) at[j] += c_pitch;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 16
    for (int j = 0; j < NV; ++j) {
      E* p = c + i * c_row + j * V::lanes;
      if (steps.bias) acc[i][j] = acc[i][j] + V(a[i]);
      if (add) acc[i][j] = acc[i][j] + V::load(p);
      acc[i][j].store(p);
    }
}

template <class V>
struct StepsTable {
  StepsFunction<typename V::value_type> at[Tile<V>::nv][Tile<V>::mr];
  template <int NV, int MR>
  constexpr void fill() {
    at[NV - 1][MR - 1] = &steps_tile<V, MR, NV>;
    if constexpr (MR > 1)
      fill<NV, MR - 1>();
    else if constexpr (NV > 1)
      fill<NV - 1, Tile<V>::mr>();
  }
  constexpr StepsTable() : at{} { fill<Tile<V>::nv, Tile<V>::mr>(); }
};

}  // namespace vectile::VECTILE_TIER
