#include "ops/reduce.h"

#include "bench.h"

namespace vectile::bench {
namespace {

const bool registered = at_start([] {
  constexpr const char* kAxes[] = {"", "axis 0", "axis 1", "all"};  // by the set's bits
  for (const i64 n : {128, 1024})
    for (const auto& op : ops::kReductions)
      for (const unsigned axes : {1u, 2u, 3u})
        add(text(op.rows.name, '/', n, 'x', n, '/', kAxes[axes]), "B/s",
            4. * static_cast<double>(n * n), [n, &op, axes] {
              return
                  [&op, axes, x = share(normal(Shape(n, n)))] { ops::reduce(op, *x, axes, false); };
            });
});

}  // namespace
}  // namespace vectile::bench
