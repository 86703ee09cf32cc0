// Rotary position embedding (Su et al., RoFormer, arXiv 2104.09864, eq. 34).
#include "kernels/rotary_row.h"

namespace vectile::VECTILE_TIER {

template <class S>
static void rotary(const S* x, i64 x_row, const Computed<S>* cosine, const Computed<S>* sine,
                   i64 table_row, bool interleaved, bool inverse, S* y, i64 rows, i64 n,
                   i64 pairs) {
  using T = Computed<S>;
  const T sign = inverse ? T(-1) : T(1);
  for (i64 r = 0; r < rows; ++r, x += x_row, y += n, cosine += table_row, sine += table_row) {
    turn_row(x, cosine, sine, sign, interleaved, pairs, y);
    for (i64 j = 2 * pairs; j < n; ++j) y[j] = x[j];
  }
}

}  // namespace vectile::VECTILE_TIER

#include "kernels/register.h"
