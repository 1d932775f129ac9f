"""The house rules: light imports, exhaustive contracts, no foreign words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_importing_loads_no_engine() -> None:
    heavy = ["polars", "duckdb", "pyarrow", "pandas", "sklearn", "numpy", "rich", "fsspec"]
    code = f"import sys, streamfeat; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_loads() -> None:
    import streamfeat

    for name in streamfeat.__all__:
        assert getattr(streamfeat, name).__doc__, name
    assert set(streamfeat.__all__) <= set(dir(streamfeat))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        streamfeat.nothing  # noqa: B018


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    environ = {"PYTHONPATH": str(root / "src"), "PATH": ""}
    return subprocess.run(
        [*command, "--no-cache"], capture_output=True, text=True, cwd=root, env=environ, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_import_contracts_hold(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("stray.py", ""),
        ("plan/stray.py", ""),
        ("memory/models.py", "import streamfeat.events\nimport streamfeat.plan.expr\n"),
        ("selection/gram.py", "import polars\n"),
        ("sources/roles.py", "import psutil\n"),
    ],
)
def test_a_breach_of_the_contracts_is_found(copy: Path, file: str, text: str) -> None:
    path = copy / "src" / "streamfeat" / file
    path.write_text((path.read_text() if path.exists() else "") + text)
    assert lint(copy).returncode != 0


def test_no_path_of_a_machine_and_no_registry_in_the_project() -> None:
    words = ["/wo" + "rk/", "py" + "pi.org", "python" + "hosted", "registry.np" + "mjs"]
    tracked = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False
    ).stdout.split("\n")
    files = [ROOT / name for name in tracked if name and not name.endswith(".parquet")]
    found = [
        (file.name, word)
        for file in files
        for word in words
        if file.exists() and word in file.read_text(encoding="utf-8")
    ]
    assert found == []
