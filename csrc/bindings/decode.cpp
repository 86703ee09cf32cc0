#include "ops/decode.h"

#include <pybind11/stl.h>

#include "bindings/array.h"

namespace vectile {
namespace {

using Window = std::optional<std::pair<std::optional<i64>, std::optional<i64>>>;

// A cache as both ops take it: its own memory, never a copy.
class Cache {
 public:
  Cache(const char* op, py::handle key, py::handle value, py::handle key_scales,
        py::handle value_scales, py::handle block_tables, py::handle lengths)
      : tables_(block_tables, op, "block_tables"), lengths_(lengths, op, "lengths") {
    cache_.key = in_place(key, op, "key_cache");
    cache_.value = in_place(value, op, "value_cache");
    if (!key_scales.is_none())
      cache_.key_scales = &(key_scales_ = in_place(key_scales, op, "key_scales"));
    if (!value_scales.is_none())
      cache_.value_scales = &(value_scales_ = in_place(value_scales, op, "value_scales"));
    cache_.block_tables = &*tables_;
    cache_.lengths = &*lengths_;
  }
  Cache(const Cache&) = delete;
  const ops::BlockCache& operator*() const { return cache_; }

 private:
  Input tables_, lengths_;
  TensorView key_scales_, value_scales_;
  ops::BlockCache cache_;
};

}  // namespace

void bind_decode(py::module_& m) {
  define(
      m, "decode_attention",
      [](py::handle query, py::handle key_cache, py::handle value_cache, py::handle block_tables,
         py::handle lengths, py::handle key_scales, py::handle value_scales,
         std::optional<double> scale, const Window& window, std::optional<double> softcap,
         py::handle alibi_slopes, py::handle sinks, bool return_lse) -> py::object {
        constexpr auto op = "decode_attention";
        const Input q(query, op, "query");
        const Cache cache(op, key_cache, value_cache, key_scales, value_scales, block_tables,
                          lengths);
        const OptionalInput slopes(alibi_slopes, op, "alibi_slopes"), sink(sinks, op, "sinks");
        ops::DecodeOptions options;
        options.scale = scale;
        if (window) options.left = window->first, options.right = window->second;
        options.softcap = softcap;
        options.alibi_slopes = slopes.get();
        options.sinks = sink.get();
        options.return_lse = return_lse;
        ops::DecodeResult r = unlocked([&] { return ops::decode_attention(*q, *cache, options); });
        py::object out = to_numpy(std::move(r.out));
        if (!return_lse) return out;
        return py::make_tuple(out, to_numpy(std::move(r.lse)));
      },
      py::arg("query"), py::arg("key_cache"), py::arg("value_cache"), py::arg("block_tables"),
      py::arg("lengths"), py::arg("key_scales"), py::arg("value_scales"), py::arg("scale"),
      py::arg("window"), py::arg("softcap"), py::arg("alibi_slopes"), py::arg("sinks"),
      py::arg("return_lse"));
  define(
      m, "append_to_cache",
      [](py::handle key, py::handle value, py::handle key_cache, py::handle value_cache,
         py::handle block_tables, py::handle lengths, py::handle counts, py::handle key_scales,
         py::handle value_scales) {
        constexpr auto op = "append_to_cache";
        const Input k(key, op, "key"), v(value, op, "value");
        const Cache cache(op, key_cache, value_cache, key_scales, value_scales, block_tables,
                          lengths);
        const OptionalInput count(counts, op, "counts");
        unlocked([&] { ops::append_to_cache(*k, *v, *cache, count.get()); });
      },
      py::arg("key"), py::arg("value"), py::arg("key_cache"), py::arg("value_cache"),
      py::arg("block_tables"), py::arg("lengths"), py::arg("counts"), py::arg("key_scales"),
      py::arg("value_scales"));
}

}  // namespace vectile
