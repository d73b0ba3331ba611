"""A module that is imported when something is first asked of it.

``importlib.util.LazyLoader`` does not serve here: ``from module import name`` asks for the name, and any
``import`` of a module that it made looks at ``__spec__``; either imports it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """Stands for a module until an attribute of it is needed."""

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


def postpone(name: str, *functions: str) -> None:
    """Let ``import`` of a submodule of the standard library cost nothing until it is used.

    Nothing is changed where it has been imported.

    Parameters
    ----------
    name
        The submodule, ``package.module``.
    functions
        Of these ``from package.module import function`` costs nothing either, until one is called.
    """
    if name in sys.modules:
        return
    later = _Later(name)
    spec = find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        later.__path__ = spec.submodule_search_locations  # ``from package import`` asks for it
    for function in functions:
        setattr(later, function, _forward(later, function))
    parent, _, child = name.rpartition(".")
    sys.modules[name] = later
    setattr(import_module(parent), child, later)


def _forward(later: _Later, function: str) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        return _Later.__getattr__(later, function)(*args, **options)

    return call
