#include "ops/decode.h"

#include "bench.h"
#include "ops/cast.h"

namespace vectile::bench {
namespace {

// (1, heads, 1, dim) against `length` cached tokens of kv_heads.
void register_decode(i64 heads, i64 kv_heads, i64 length, i64 dim, DType dtype) {
  const std::string size = text(heads, ':', kv_heads, 'x', length, 'x', dim, '/', dtype);
  const Shape shape(1, kv_heads, length, dim);
  const double bytes =
      2. * static_cast<double>(shape.elements()) * static_cast<double>(item_size(dtype));
  add("decode_attention/" + size, "B/s", bytes, [=] {
    const auto cached = [=] {
      if (dtype == DType::i8) return integers(dtype, shape, -127, 127);
      return dtype == DType::f32 ? normal(shape) : cast_to(normal(shape), dtype);
    };
    auto scales = share(Array::full(DType::f32, Shape(1, kv_heads, length), 0.01));
    auto zero = share(integers(DType::i64, Shape(1, 1), 0, 0));
    auto lengths = share(integers(DType::i64, Shape(1), int(length), int(length)));
    return
        [=, q = share(normal(Shape(1, heads, 1, dim))), k = share(cached()), v = share(cached())] {
          ops::BlockCache cache{*k, *v, nullptr, nullptr, &*zero, &*lengths};
          if (dtype == DType::i8) cache.key_scales = cache.value_scales = &*scales;
          ops::decode_attention(*q, cache, {});
        };
  });
}

const bool registered = at_start([] {
  for (const DType dtype : {DType::f32, DType::bf16, DType::i8})
    for (const i64 length : {1024, 4096}) {
      register_decode(12, 12, length, 64, dtype);
      register_decode(32, 8, length, 128, dtype);
    }
});

}  // namespace
}  // namespace vectile::bench
