"""Tests of the wheel: it contains all that the application needs and runs from any folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "src" / "grit_lightning"
OFFLINE = ("No matching distribution found", "Failed to establish a new connection", "Temporary failure in name")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--retries=0", "-w", str(folder), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode and any(reason in done.stderr for reason in OFFLINE):
        pytest.skip("the build backend cannot be fetched")
    assert done.returncode == 0, done.stderr
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def shipped(folder: Path) -> set[str]:
    """Return the relative paths of a folder's files, without ``__pycache__``."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)) for path in files}


def test_the_wheel_holds_code_configs_and_assets(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {f"grit_lightning/{name}" for name in shipped(PACKAGE)}
    expected |= {f"grit_lightning/conf/{name}" for name in shipped(REPOSITORY / "conf")}
    assert names == expected
    assert {"grit_lightning/conf/config.yaml", "grit_lightning/assets/tiny/config.json"} <= names
    assert sum(name.startswith("grit_lightning/assets/shapes20/images/") for name in names) == 20


def test_the_unpacked_wheel_runs_from_another_folder(cli, unpacked: Path, tmp_path: Path) -> None:
    where = "import grit_lightning, grit_lightning.system.paths as p; print(grit_lightning.__file__, p.conf_dir())"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env={"PYTHONPATH": str(unpacked)}, capture_output=True, text=True
    )
    assert found.stdout.split() == [f"{unpacked}/grit_lightning/__init__.py", f"{unpacked}/grit_lightning/conf"]
    shown = cli("--help", cwd=tmp_path, PYTHONPATH=str(unpacked))
    assert shown.returncode == 0, shown.stderr
    assert "\ndata: grit, grit20, grit_eval, shapes20, shapes_lessons\n" in shown.stdout
    checked = cli("task=validate", "data.val=null", cwd=tmp_path, PYTHONPATH=str(unpacked))
    assert checked.returncode == 0, checked.stderr
    assert f"model {unpacked}/grit_lightning/assets/tiny;" in checked.stdout
    assert checked.stdout.endswith("\n0 problems\n")
