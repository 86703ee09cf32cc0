// decode family on a device; the layout of a cache is in ops/decode_args.h. d and dv at most 256.
//
// Lengths and tables stay on the device and are not checked there. A needed entry of a table that
// names no block, or a length past the table, makes NaNs of the rows that see the token; nothing is
// read or, when appending, written in its place. A negative length is zero; counts are brought into
// their range. A NaN in a value that only some of a sequence's newest tokens see may reach them
// all.
#pragma once

#include "ops/decode_args.h"
#include "runtime.h"

namespace vectile::cuda {

struct DecodeResult {
  Array out, lse;
};
DecodeResult decode_attention(const TensorView& query, const ops::BlockCache& cache,
                              const ops::DecodeOptions& options);

void append_to_cache(const TensorView& key, const TensorView& value, const ops::BlockCache& cache,
                     const TensorView* counts);

}  // namespace vectile::cuda
