"""Optional packages, with one clear line when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingExtra(ImportError):
    """A package that only some commands need is not installed."""


_DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # where it is not the module's name


def require(module: str, purpose: str, extra: str = "demo") -> ModuleType:
    """Import an optional module; MissingExtra says what needs it and which extra installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise MissingExtra(
            f"{purpose} needs the package {_DISTRIBUTIONS.get(name, name)}: "
            f"pip install 'vectile[{extra}]'"
        ) from error
