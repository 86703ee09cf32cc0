"""Whole networks."""

from vectile.models.gpt import GPT, GPTConfig

__all__ = ["GPT", "GPTConfig"]
