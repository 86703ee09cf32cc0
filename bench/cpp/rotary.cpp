#include "ops/rotary.h"

#include "bench.h"

namespace vectile::bench {
namespace {

void register_rotary(i64 heads, i64 length, i64 dim, bool interleaved) {
  const std::string size = text(heads, 'x', length, 'x', dim, interleaved ? "/interleaved" : "");
  const double moved = 2. * 4 * static_cast<double>(heads * length * dim);
  add("rotary_embedding/" + size, "B/s", moved, [=] {
    return [=, x = share(normal(Shape(heads, length, dim))),
            c = share(normal(Shape(length, dim / 2)))] {
      ops::rotary_embedding(*x, *c, *c, interleaved, false);
    };
  });
}

const bool registered = at_start([] {
  register_rotary(12, 512, 64, false);
  register_rotary(12, 512, 64, true);
});

}  // namespace
}  // namespace vectile::bench
