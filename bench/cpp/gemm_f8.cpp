#include "ops/gemm_f8.h"

#include "bench.h"
#include "ops/cast.h"
#include "ops/gemm.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  constexpr i64 kShapes[][3] = {{1, 4096, 4096}, {8, 4096, 4096}, {128, 3072, 768}, {33, 65, 127}};
  for (const auto& [m, n, k] : kShapes)
    for (const DType format : {DType::f8e4m3, DType::f8e5m2}) {
      const double products = 2. * static_cast<double>(m * n * k);
      add(text("linear_fp8/", format, '/', m, 'x', n, 'x', k), "FLOP/s", products,
          [m = m, n = n, k = k, format] {
            const auto weight = std::make_shared<ops::Float8Matrix>(
                cast_to(normal(Shape(n, k)), format), Array::full(DType::f32, Shape(n), 1));
            return [weight, x = share(normal(Shape(m, k)))] {
              ops::linear(*x, *weight, nullptr, Activation::none);
            };
          });
    }
});

}  // namespace
}  // namespace vectile::bench
