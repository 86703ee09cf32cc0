"""Which recipes there are, and which options each one takes."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

COURSE = (
    "regression mlp lenet resnet vit autoencoder vae gan dcgan cgan wgan wgan-gp stylegan ddpm cyclegan "
    "translate-rnn translate-attention translate-transformer skipgram char-lstm bert"
).split()
"""The order to read them in: each builds on some before it."""

COMMON = ("rich", "matplotlib", "safetensors")
"""Modules that every recipe uses."""

_RECIPES: dict[str, Recipe] = {}


@dataclass(frozen=True)
class Option:
    """One keyword argument of a recipe. `kind` converts a word of the command line."""

    name: str
    kind: Callable[[str], Any]
    default: Any
    help: str
    choices: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Recipe:
    """A training function with its name, what it teaches, and the modules that it needs.

    `falls` names the logged values that training must bring down, in the smoke run too.
    """

    name: str
    summary: str
    train: Callable[..., None]
    needs: tuple[str, ...]
    falls: tuple[str, ...]

    def options(self) -> list[Option]:
        """The keyword arguments after `run`, which need a default; help comes from `Annotated[T, "help"]`."""
        hints = get_type_hints(self.train, include_extras=True)
        parameters = list(inspect.signature(self.train).parameters.values())[1:]
        return [_option(p.name, hints.get(p.name, str), p.default) for p in parameters]


def recipe(
    name: str,
    summary: str,
    *,
    needs: Sequence[str] = ("sklearn",),
    falls: Sequence[str] = ("loss",),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `train(run, **options)` under a name; ValueError for one that is taken.

    `needs`: importable modules beyond COMMON.
    """

    def register(train: Callable[..., None]) -> Callable[..., None]:
        if name in _RECIPES:
            raise ValueError(f"recipe: name: expected a new one, got {name!r} again")
        modules = (*COMMON, *needs)
        _RECIPES[name] = Recipe(name, summary, train, modules, tuple(falls))
        return train

    return register


def recipes() -> dict[str, Recipe]:
    """Every recipe by name, in the order of COURSE, others behind; imports the files of this folder."""
    import vectile.recipes as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    place = {name: i for i, name in enumerate(COURSE)}
    order = sorted(_RECIPES, key=lambda name: (place.get(name, len(place)), name))
    return {name: _RECIPES[name] for name in order}


def find(name: str) -> Recipe:
    """The recipe of that name; ValueError lists what there is."""
    known = recipes()
    if name not in known:
        raise ValueError(f"recipe: expected one of {', '.join(known)}; got {name!r}")
    return known[name]


def _option(name: str, hint: Any, default: Any) -> Option:
    text, choices = "", None
    if get_origin(hint) is Annotated:
        hint, text = get_args(hint)[:2]
    if get_origin(hint) in (Union, types.UnionType):  # T | None
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        hint = type(choices[0])
    return Option(name, hint, default, text, choices)
