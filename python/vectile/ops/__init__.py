"""Kernels over NumPy arrays: arrays in, arrays out; one module per family.

Floating-point arguments of one call share a dtype: float32, float64, float16 or ``ml_dtypes.bfloat16``.
The last two are storage: kernels compute on them in float32, and results are rounded to them once;
products of bfloat16 use the CPU's own arithmetic where that is faster (:data:`Compute`).
Beside them norm parameters and optimiser state may be float32; statistics, log-sum-exps and what a
recurrent forward keeps are float32. Every function checks its arguments and raises
``op: argument property: expected X, got Y``: ValueError for shapes and values, TypeError for dtypes,
IndexError for indices. Results own 64-byte aligned memory and are bitwise the same for any number of
threads.
"""

from vectile.ops.attention import *  # noqa: F403
from vectile.ops.cast import *  # noqa: F403
from vectile.ops.conv import *  # noqa: F403
from vectile.ops.decode import *  # noqa: F403
from vectile.ops.elementwise import *  # noqa: F403
from vectile.ops.embedding import *  # noqa: F403
from vectile.ops.gemm import *  # noqa: F403
from vectile.ops.gemm_f8 import *  # noqa: F403
from vectile.ops.gemm_s4 import *  # noqa: F403
from vectile.ops.gemm_s8 import *  # noqa: F403
from vectile.ops.loss import *  # noqa: F403
from vectile.ops.norm import *  # noqa: F403
from vectile.ops.optimizer import *  # noqa: F403
from vectile.ops.pool import *  # noqa: F403
from vectile.ops.quantize import *  # noqa: F403
from vectile.ops.recurrent import *  # noqa: F403
from vectile.ops.reduce import *  # noqa: F403
from vectile.ops.rotary import *  # noqa: F403
from vectile.ops.softmax import *  # noqa: F403
