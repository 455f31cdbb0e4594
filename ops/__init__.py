"""The catalogue: one declaration per op, torch-free. The folder is the registry."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphspec.declare import Catalogue


@cache
def catalogue() -> Catalogue:
    """Every op declared in a file of this folder. `modules/` and `parity/` hold no declarations and stay unimported.

    Raises ValueError when two files declare one name or one spelling.
    """
    from graphspec.declare import Catalogue

    files = sorted(found.name for found in pkgutil.iter_modules(__path__) if not found.ispkg)
    return Catalogue.of_modules(importlib.import_module(f"{__name__}.{name}") for name in files)
