"""Pictures: every function takes arrays and returns a matplotlib figure; `save` writes it as a PNG.

Weights and images are NumPy arrays (or what `np.asarray` takes). Nothing here touches pyplot or any other
global state. MissingExtra without matplotlib.
"""

from vectile.viz.attention import attention_grid, attention_heads, attention_map, cross_attention
from vectile.viz.bars import bar_chart
from vectile.viz.curves import loss_curves, smooth
from vectile.viz.images import reconstructions, sample_grid
from vectile.viz.kernels import kernel_chart
from vectile.viz.maps import confusion_matrix, embedding_map
from vectile.viz.style import save
from vectile.viz.text import passages

__all__ = [
    "attention_grid",
    "attention_heads",
    "attention_map",
    "bar_chart",
    "confusion_matrix",
    "cross_attention",
    "embedding_map",
    "kernel_chart",
    "loss_curves",
    "passages",
    "reconstructions",
    "sample_grid",
    "save",
    "smooth",
]
