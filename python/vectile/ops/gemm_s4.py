"""Weights in 4 bits, scaled by groups, for :func:`vectile.ops.linear`."""

from __future__ import annotations

from vectile._core import Int4Matrix

__all__ = ["Int4Matrix"]
