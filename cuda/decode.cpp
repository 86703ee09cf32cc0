#include "decode.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include "array.h"

namespace vectile::cuda {
namespace {

using Window = std::optional<std::pair<std::optional<i64>, std::optional<i64>>>;

// A cache as both ops take it, in place.
struct Cache {
  const Input key, value, tables, lengths;
  const OptionalInput key_scales, value_scales;
  Cache(const char* op, nb::handle key_cache, nb::handle value_cache, nb::handle block_tables,
        nb::handle lengths, nb::handle key_scales, nb::handle value_scales)
      : key(key_cache, op, "key_cache"),
        value(value_cache, op, "value_cache"),
        tables(block_tables, op, "block_tables"),
        lengths(lengths, op, "lengths"),
        key_scales(key_scales, op, "key_scales"),
        value_scales(value_scales, op, "value_scales") {}
  ops::BlockCache operator*() const {
    return {*key, *value, key_scales.get(), value_scales.get(), &*tables, &*lengths};
  }
};

}  // namespace

void bind_decode(nb::module_& m) {
  m.def(
      "decode_attention",
      [](nb::handle query, nb::handle key_cache, nb::handle value_cache, nb::handle block_tables,
         nb::handle lengths, nb::handle key_scales, nb::handle value_scales,
         std::optional<double> scale, const Window& window, std::optional<double> softcap,
         nb::handle alibi_slopes, nb::handle sinks, bool return_lse,
         std::uintptr_t stream) -> nb::object {
        constexpr auto op = "decode_attention";
        const Input q(query, op, "query");
        const Cache cache(op, key_cache, value_cache, block_tables, lengths, key_scales,
                          value_scales);
        const OptionalInput slopes(alibi_slopes, op, "alibi_slopes"), sink(sinks, op, "sinks");
        ops::DecodeOptions options;
        options.scale = scale;
        if (window) options.left = window->first, options.right = window->second;
        options.softcap = softcap;
        options.alibi_slopes = slopes.get();
        options.sinks = sink.get();
        options.return_lse = return_lse;
        const OnDevice here(op, stream, q, cache.key, cache.value, cache.tables, cache.lengths,
                            cache.key_scales, cache.value_scales, slopes, sink);
        DecodeResult r = unlocked([&] { return decode_attention(*q, *cache, options); });
        nb::object out = to_python(std::move(r.out));
        if (!return_lse) return out;
        return nb::make_tuple(out, to_python(std::move(r.lse)));
      },
      nb::arg("query"), nb::arg("key_cache"), nb::arg("value_cache"), nb::arg("block_tables"),
      nb::arg("lengths"), nb::arg("key_scales") = nb::none(), nb::arg("value_scales") = nb::none(),
      nb::arg("scale") = nb::none(), nb::arg("window") = nb::none(),
      nb::arg("softcap") = nb::none(), nb::arg("alibi_slopes") = nb::none(),
      nb::arg("sinks") = nb::none(), nb::arg("return_lse") = false, nb::arg("stream") = 0);
  m.def(
      "append_to_cache",
      [](nb::handle key, nb::handle value, nb::handle key_cache, nb::handle value_cache,
         nb::handle block_tables, nb::handle lengths, nb::handle counts, nb::handle key_scales,
         nb::handle value_scales, std::uintptr_t stream) {
        constexpr auto op = "append_to_cache";
        const Input k(key, op, "key"), v(value, op, "value");
        const Cache cache(op, key_cache, value_cache, block_tables, lengths, key_scales,
                          value_scales);
        const OptionalInput count(counts, op, "counts");
        const OnDevice here(op, stream, k, v, cache.key, cache.value, cache.tables, cache.lengths,
                            cache.key_scales, cache.value_scales, count);
        unlocked([&] { append_to_cache(*k, *v, *cache, count.get()); });
      },
      nb::arg("key"), nb::arg("value"), nb::arg("key_cache"), nb::arg("value_cache"),
      nb::arg("block_tables"), nb::arg("lengths"), nb::arg("counts") = nb::none(),
      nb::arg("key_scales") = nb::none(), nb::arg("value_scales") = nb::none(),
      nb::arg("stream") = 0);
}

}  // namespace vectile::cuda
