"""The operations on Tensors, as functions.

Each runs its kernel and, where an operand requires grad, records its rule. Operands may be Tensors,
ndarrays or scalars unless said otherwise; shapes, dtypes and errors are those of the kernel of the same
name in `vectile.ops`.
"""

from vectile.autograd.arithmetic import *  # noqa: F403
from vectile.autograd.attention import *  # noqa: F403
from vectile.autograd.conv import *  # noqa: F403
from vectile.autograd.networks import *  # noqa: F403
from vectile.autograd.norm import *  # noqa: F403
from vectile.autograd.pool import *  # noqa: F403
from vectile.autograd.recurrent import *  # noqa: F403
from vectile.autograd.shaping import *  # noqa: F403
