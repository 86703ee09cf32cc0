#include "ops/cast.h"

#include "bench.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  for (const DType half : {DType::f16, DType::bf16})
    for (const i64 n : {i64{1} << 16, i64{1} << 24}) {
      const std::string size = text(dtype_name(half), '/', n);
      const double traffic = 6. * static_cast<double>(n);
      add("narrow/" + size, "B/s", traffic,
          [n, half] { return [x = share(normal(Shape(n))), half] { ops::cast(*x, half); }; });
      add("widen/" + size, "B/s", traffic, [n, half] {
        return [x = share(ops::cast(normal(Shape(n)), half))] { ops::cast(*x, DType::f32); };
      });
    }
});

}  // namespace
}  // namespace vectile::bench
