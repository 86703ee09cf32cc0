// The x86 intrinsics; with VECTILE_EMULATED (a build with VECTILE_EMULATE=ON) those of AVX-512 are
// hidden by functions of the same names in this tier's namespace.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)  // GCC 12 warns about its own _mm512_undefined_ps
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

#ifdef VECTILE_EMULATED
#include "simd/emulated.h"
#endif
