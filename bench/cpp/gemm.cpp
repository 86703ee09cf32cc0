#include "ops/gemm.h"

#include "bench.h"
#include "ops/cast.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  constexpr i64 kShapes[][3] = {{64, 64, 64},    {256, 256, 256}, {1024, 1024, 1024},
                                {8, 3072, 768},  {32, 3072, 768}, {1000, 513, 37},
                                {127, 129, 131}, {1, 4096, 4096}};
  for (const auto& [m, n, k] : kShapes) {
    const double flops = 2. * static_cast<double>(m * n * k);
    const std::string size = text(m, 'x', n, 'x', k);
    add("matmul/" + size, "FLOP/s", flops, [m = m, n = n, k = k] {
      return
          [a = share(normal(Shape(m, k))), b = share(normal(Shape(k, n)))] { ops::matmul(*a, *b); };
    });
    for (const DType half : {DType::f16, DType::bf16})
      add(text("matmul_", dtype_name(half), '/', size), "FLOP/s", flops,
          [m = m, n = n, k = k, half] {
            return [a = share(ops::cast(normal(Shape(m, k)), half)),
                    b = share(ops::cast(normal(Shape(k, n)), half))] { ops::matmul(*a, *b); };
          });
    add("linear_packed_gelu/" + size, "FLOP/s", flops, [m = m, n = n, k = k] {
      auto weight = std::make_shared<ops::PackedMatrix>(normal(Shape(n, k)));
      return [x = share(normal(Shape(m, k))), weight] {
        ops::linear(*x, *weight, nullptr, Activation::gelu);
      };
    });
  }
});

}  // namespace
}  // namespace vectile::bench
