"""However it is installed, the package finds its SQL and its migrations."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import catbird_db

ROOT = Path(__file__).parent.parent
NOT_SOURCE = [
    ".venv",
    ".git",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "dist",
    "build",
    "*.egg-info",
]

FIND = """
import hashlib, json, pathlib
import catbird_db
from catbird_db.migrate import migrations_dir, shipped_migrations
from catbird_db.query import bound

package = pathlib.Path(catbird_db.__file__).parent
files = {}
for folder in (package / "sql", migrations_dir()):
    for file in sorted(folder.rglob("*.sql")):
        files[str(file.relative_to(folder.parent))] = hashlib.sha256(file.read_bytes()).hexdigest()
print(json.dumps([str(package), files, shipped_migrations(), len(bound())]))
"""


@dataclass
class Source:
    """A copy of the project, as a clone has it, and what was built of it."""

    clone: Path
    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("source")
    clone = folder / "clone"
    shutil.copytree(ROOT, clone, symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, clone]
    run(*build)  # the wheel is built of the sdist
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return Source(clone, wheel, sdist)


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd="/",
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(folder: Path) -> Path:
    """A virtual environment with what this one has, but for the package itself."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (site_packages,) = folder.glob("lib/*/site-packages")
    (site_packages / "what-else-is-there.pth").write_text(sysconfig.get_path("purelib"))
    return python


def assert_finds_everything(python: Path, home: Path, **environment: str) -> None:
    package, files, migrations, statements = json.loads(run(python, "-c", FIND, **environment))
    assert Path(package) == home / "catbird_db"
    expected = {
        str(file.relative_to(ROOT)): hashlib.sha256(file.read_bytes()).hexdigest()
        for name in ("sql", "migrations")
        for file in (ROOT / name).rglob("*.sql")
    }
    assert files == expected
    assert len(migrations) >= 4
    assert statements == len(catbird_db.query.bound()) > 40


@pytest.mark.parametrize("built", ["wheel", "sdist"])
def test_what_is_installed_from_a_file_finds_its_sql_and_migrations(
    source: Source, tmp_path: Path, built: str
) -> None:
    python = environment(tmp_path)
    options = ["--no-deps", "--no-index", "--no-build-isolation"]
    pip = [sys.executable, "-m", "pip", "--python", python, "install", *options]
    run(*pip, getattr(source, built))
    (site_packages,) = tmp_path.glob("lib/*/site-packages")
    assert_finds_everything(python, site_packages)


def test_what_is_installed_editable_finds_its_sql_and_migrations(
    source: Source, tmp_path: Path
) -> None:
    python = environment(tmp_path)
    options = ["--no-deps", "--no-index", "--no-build-isolation"]
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, "-e", source.clone)
    assert_finds_everything(python, source.clone)


def test_a_plain_clone_finds_its_sql_and_migrations(source: Source) -> None:
    assert_finds_everything(Path(sys.executable), source.clone, PYTHONPATH=str(source.clone))


def test_an_unpacked_sdist_is_a_clone(source: Source, tmp_path: Path) -> None:
    with tarfile.open(source.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (home,) = tmp_path.iterdir()
    for name in ("sql", "migrations"):
        here, there = (
            {f.relative_to(h): f.read_bytes() for f in (h / name).rglob("*.sql")}
            for h in (home, ROOT)
        )
        assert here == there
    for name in ("yoyo.ini", ".env.example", "tests/test_packaging.py", "pyproject.toml"):
        assert (home / name).read_bytes() == (ROOT / name).read_bytes()


def test_the_wheel_holds_the_package_and_nothing_else(source: Source) -> None:
    names = zipfile.ZipFile(source.wheel).namelist()
    assert len(set(names)) == len(names)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"catbird_db"}
    assert "catbird_db/py.typed" in names
    tree = {
        str(path.relative_to(source.clone))
        for folder in ("catbird_db", "catbird_db/sql", "catbird_db/migrations")
        for path in (source.clone / folder).rglob("*")
        if path.is_file()
    }
    assert {name for name in names if name.startswith("catbird_db/")} == tree


def test_the_links_are_relative_so_that_a_clone_may_lie_anywhere() -> None:
    for name in ("sql", "migrations"):
        assert (ROOT / "catbird_db" / name).readlink() == Path("..") / name
