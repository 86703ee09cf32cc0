// Rotary position embedding (Su et al., RoFormer, arXiv 2104.09864, eq. 34).
#include "base/types.h"
#include "simd/stored.h"
#include "simd/vec.h"

namespace vectile::VECTILE_TIER {

template <class S>
static void rotary(const S* x, i64 x_row, const Computed<S>* cosine, const Computed<S>* sine,
                   i64 table_row, bool interleaved, S* y, i64 rows, i64 n, i64 pairs) {
  using T = Computed<S>;
  using V = Vec<T>;
  constexpr int w = V::lanes;
  for (i64 r = 0; r < rows; ++r, x += x_row, y += n, cosine += table_row, sine += table_row) {
    i64 j = 0;
    for (; j + w <= pairs; j += w) {
      const V c = V::load(cosine + j), s = V::load(sine + j);
      if (interleaved) {
        V a, b, first, second;
        deinterleave(load_as<V>(x + 2 * j), load_as<V>(x + 2 * j + w), a, b);
        interleave(fnma(b, s, a * c), fma(a, s, b * c), first, second);
        store_as(first, y + 2 * j);
        store_as(second, y + 2 * j + w);
      } else {
        const V a = load_as<V>(x + j), b = load_as<V>(x + pairs + j);
        store_as(fnma(b, s, a * c), y + j);
        store_as(fma(a, s, b * c), y + pairs + j);
      }
    }
    for (; j < pairs; ++j) {
      const i64 first = interleaved ? 2 * j : j, second = interleaved ? 2 * j + 1 : pairs + j;
      const V a = load_as<V>(x + first, 1), b = load_as<V>(x + second, 1);
      const V c(cosine[j]), s(sine[j]);
      store_as(fnma(b, s, a * c), y + first, 1);
      store_as(fma(a, s, b * c), y + second, 1);
    }
    for (j = 2 * pairs; j < n; ++j) y[j] = x[j];
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
