"""Submodules with optional dependencies: attributes of their package that are imported on first use."""

import importlib
from collections.abc import Callable
from types import ModuleType


def on_first_use(package: str, names: tuple[str, ...]) -> Callable[[str], ModuleType]:
    """The `__getattr__` of a package, which imports these submodules and knows no other name."""

    def look_up(name: str) -> ModuleType:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return importlib.import_module(f"{package}.{name}")

    return look_up
