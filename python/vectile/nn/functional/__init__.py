"""Functions on Tensors (or NumPy arrays) with PyTorch's names and arguments.

The kernels' own ops come straight from `vectile.autograd.functional`; the modules here hold those whose
arguments differ from the kernel's, and the losses.
"""

from vectile.autograd.functional import (
    conv1d,
    conv2d,
    conv_transpose1d,
    conv_transpose2d,
    gelu,
    gru,
    leaky_relu,
    linear,
    log_softmax,
    lstm,
    relu,
    rnn,
    scaled_dot_product_attention,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from vectile.nn.functional.layers import (
    dropout,
    embedding,
    flatten,
    layer_norm,
    packed_self_attention,
    rms_norm,
)
from vectile.nn.functional.losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
)
from vectile.nn.functional.norm import batch_norm, group_norm, instance_norm

__all__ = [
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "embedding",
    "flatten",
    "gelu",
    "group_norm",
    "gru",
    "instance_norm",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "lstm",
    "mse_loss",
    "nll_loss",
    "packed_self_attention",
    "relu",
    "rms_norm",
    "rnn",
    "scaled_dot_product_attention",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]
