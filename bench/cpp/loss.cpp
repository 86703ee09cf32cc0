#include "ops/loss.h"

#include "bench.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  for (const auto& [rows, n] : {std::pair<i64, i64>{32, 10}, {768, 256}, {128, 50257}})
    add(text("cross_entropy/", rows, 'x', n), "B/s", 4. * static_cast<double>(rows * n),
        [rows = rows, n = n] {
          return [x = share(normal(Shape(rows, n))),
                  t = share(integers(DType::i64, Shape(rows), 0, static_cast<int>(n) - 1))] {
            ops::cross_entropy(*x, *t, {});
          };
        });
});

}  // namespace
}  // namespace vectile::bench
