// The ceilings that the other figures are to be compared with.
#include "bench.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  for (const i64 n : {i64{1} << 12, i64{1} << 16, i64{1} << 20, i64{1} << 25})
    add(text("read_all/", 4 * n >> 10, "KiB"), "B/s", 4. * static_cast<double>(n), [n] {
      return [=, x = share(normal(Shape(n)))] {
        float sum;
        kernels().read_all(x->as<float>(), n, &sum);
      };
    });
});

}  // namespace
}  // namespace vectile::bench
