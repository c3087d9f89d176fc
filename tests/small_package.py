"""A package as a user of this library writes one: a module of stubs, and its .sql file."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

IMPORTS = """\
from catbird_db.pagination import Page
from catbird_db.pool import Executor
from catbird_db.query import query
from catbird_db.types import Cursor, Limit, Row, Unset
"""


def write_package(folder: Path, package: str, module: str, stubs: str, sql: str | None) -> Path:
    """Write ``folder/package/module.py`` and, unless None, ``folder/package/sql/module.sql``."""
    home = folder / package
    (home / "sql").mkdir(parents=True)
    (home / "__init__.py").touch()
    (home / f"{module}.py").write_text(f"{IMPORTS}\n\n{stubs}", encoding="utf-8")
    if sql is not None:
        (home / "sql" / f"{module}.sql").write_text(sql, encoding="utf-8")
    return home


def import_package(folder: Path, package: str, module: str, stubs: str, sql: str) -> ModuleType:
    """The imported module of a package that `write_package` wrote."""
    write_package(folder, package, module, stubs, sql)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(f"{package}.{module}")
    finally:
        sys.path.remove(str(folder))
