"""Tests of the locations of the package's own files."""

from __future__ import annotations

from pathlib import Path

import pytest

from grit_lightning.system.paths import asset, cache_folder, conf_dir


def test_conf_dir_and_asset_exist_and_are_absolute() -> None:
    assert conf_dir().is_absolute()
    assert (conf_dir() / "config.yaml").is_file()
    assert asset("tiny").is_absolute()
    assert (asset("tiny") / "config.json").is_file()
    assert asset("judge/answer.txt").is_file()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"GRIT_LIGHTNING_CACHE": "/own", "XDG_CACHE_HOME": "/xdg"}, "/own"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/grit_lightning"),
        ({"GRIT_LIGHTNING_CACHE": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/grit_lightning"),
        ({}, "/home/alice/.cache/grit_lightning"),
    ],
    ids=["own", "xdg", "own_is_empty", "home"],
)
def test_the_cache_folder_is_the_own_variable_then_xdg_then_home(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    for name in ("GRIT_LIGHTNING_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/alice")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)
