// The options of attention as both modules of Python take them, whichever library binds them.
#pragma once

#include <optional>
#include <utility>

#include "ops/attention_args.h"

namespace vectile {

using AttentionWindow = std::optional<std::pair<std::optional<i64>, std::optional<i64>>>;
using AttentionBlockSize = std::optional<std::pair<i64, i64>>;

// What both passes take, with the arrays that they point to: OptionalInput(handle, op, argument),
// or OptionalInput() for none.
template <class Handle, class Object, class OptionalInput>
class AttentionInputs {
 public:
  using Rotary = std::optional<std::pair<Object, Object>>;

  AttentionInputs(const char* op, bool is_causal, const AttentionWindow& window, Handle block_mask,
                  const AttentionBlockSize& block_size, Handle key_lengths, Handle cu_seqlens_q,
                  Handle cu_seqlens_k, Handle document_ids, std::optional<double> scale,
                  std::optional<double> softcap, Handle alibi_slopes, Handle sinks,
                  const Rotary& rotary, bool rotary_interleaved, double dropout_p,
                  std::uint64_t seed)
      : block_mask_(block_mask, op, "block_mask"),
        key_lengths_(key_lengths, op, "key_lengths"),
        cu_seqlens_q_(cu_seqlens_q, op, "cu_seqlens_q"),
        cu_seqlens_k_(cu_seqlens_k, op, "cu_seqlens_k"),
        document_ids_(document_ids, op, "document_ids"),
        alibi_slopes_(alibi_slopes, op, "alibi_slopes"),
        sinks_(sinks, op, "sinks") {
    value.is_causal = is_causal;
    if (window) value.left = window->first, value.right = window->second;
    if (block_size) value.block_rows = block_size->first, value.block_columns = block_size->second;
    value.block_mask = block_mask_.get();
    value.key_lengths = key_lengths_.get();
    value.cu_seqlens_q = cu_seqlens_q_.get();
    value.cu_seqlens_k = cu_seqlens_k_.get();
    value.document_ids = document_ids_.get();
    value.scale = scale;
    value.softcap = softcap;
    value.alibi_slopes = alibi_slopes_.get();
    value.sinks = sinks_.get();
    if (rotary) {
      cosine_ = OptionalInput(rotary->first, op, "rotary cosine");
      sine_ = OptionalInput(rotary->second, op, "rotary sine");
      value.cosine = cosine_.get();
      value.sine = sine_.get();
      check(value.cosine && value.sine, op, "rotary", "value", "(cosine, sine)", "None among them");
    }
    value.interleaved = rotary_interleaved;
    value.dropout_p = dropout_p;
    value.seed = seed;
  }
  // f(arrays...)
  template <class F>
  auto arrays(F&& f) const {
    return f(block_mask_, key_lengths_, cu_seqlens_q_, cu_seqlens_k_, document_ids_, alibi_slopes_,
             sinks_, cosine_, sine_);
  }
  ops::AttentionOptions value;

 private:
  OptionalInput block_mask_, key_lengths_, cu_seqlens_q_, cu_seqlens_k_, document_ids_;
  OptionalInput alibi_slopes_, sinks_, cosine_, sine_;
};

}  // namespace vectile
