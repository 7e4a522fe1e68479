"""Finds plugins by their ids: a new task, scorer, provider or contender class is one new file.

An id is the name of a module in one of tuneoff's packages, of an installed module
(`my_package.my_task`), or the path of a Python file (`./my_task.py`). There is no list to edit and
no decorator: a module counts if it has the attributes that its kind needs.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tuneoff.errors import ConfigError, explain_unknown


def list_ids(package: str, needs: Sequence[str]) -> list[str]:
    """Return the ids that a package of tuneoff offers, sorted."""
    parent = importlib.import_module(package)
    names = [module.name for module in pkgutil.iter_modules(parent.__path__)]
    return sorted(n for n in names if _has(importlib.import_module(f"{package}.{n}"), needs))


def find(package: str, id: str, what: str, needs: Sequence[str]) -> ModuleType:
    """Return the module of an id.

    Raises:
        ConfigError: there is no such module, or it lacks what its kind needs.
    """
    if id.endswith(".py"):
        module = _load_file(Path(id), what)
    elif "." in id:
        module = _load_import(id, what)
    else:
        allowed = list_ids(package, needs)
        if id not in allowed:
            raise ConfigError(
                f"{explain_unknown(what, id, allowed)}; or give the name of an installed module, "
                "or the path of a Python file."
            )
        module = importlib.import_module(f"{package}.{id}")
    missing = [name for name in needs if not hasattr(module, name)]
    if missing:
        raise ConfigError(f"{what} {id!r}: the module has no {', '.join(missing)}; add it.")
    return module


def _has(module: ModuleType, needs: Sequence[str]) -> bool:
    """Return whether a module has all of these attributes."""
    return all(hasattr(module, name) for name in needs)


def _load_file(path: Path, what: str) -> ModuleType:
    """Return the module of a Python file.

    Raises:
        ConfigError: there is no such file, or it cannot be run.
    """
    spec = importlib.util.spec_from_file_location(f"tuneoff_{what}_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{what} {str(path)!r}: there is no such Python file; check the path.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        first = (str(error) or "no message").splitlines()[0]
        raise ConfigError(
            f"{what} {str(path)!r}: the file cannot be run ({type(error).__name__}: {first})."
        ) from error
    return module


def _load_import(name: str, what: str) -> ModuleType:
    """Return an installed module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{what} {name!r}: no module named {error.name!r} is installed; install it, or give "
            "the path of a Python file."
        ) from None
