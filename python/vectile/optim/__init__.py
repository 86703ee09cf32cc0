"""Optimisers, learning-rate schedules and regularisation; PyTorch's names, formulas and state layout."""

from vectile.optim import lr_scheduler
from vectile.optim.algorithms import SGD, Adam, AdamW, RMSprop
from vectile.optim.averaging import EMA
from vectile.optim.optimizer import Optimizer
from vectile.optim.regularization import penalty

__all__ = ["EMA", "SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler", "penalty"]
