// The rates this machine reaches now, on the active tier and every thread of the pool.
#pragma once

#include "base/types.h"

namespace vectile::ops {

double fma_rate();     // float32 multiply-adds, FLOP/s
double dot_s8_rate();  // int8 dot products into int32, OP/s
// Whether this thread runs those chains (steps, result, operations) faster than multiply-adds of
// float32 on the active tier; measured once for each kernel, in some 20 microseconds.
bool faster_than_fma(void (*chains)(i64, float*, double*));

double read_rate(i64 n_bytes);  // reading n_bytes that were read before, bytes/s; n_bytes >= 4096

// Copying one half of n_bytes to the other, bytes read and written a second; n_bytes >= 4096.
// `stream`: with stores around the caches, where the tier has them.
double copy_rate(i64 n_bytes, bool stream);

}  // namespace vectile::ops
