import getpass
import json
import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pytest
import torch

from grit_lightning.runs import manifest as module
from grit_lightning.runs.manifest import manifest


def made(**changes) -> dict:
    return manifest(**{"seed": 3, "overrides": ["seed=3"], "data_sha256": {"data/a.jsonl": "ab"}} | changes)


def test_inputs_versions_and_machine():
    result = made()
    assert (result["seed"], result["overrides"], result["data_sha256"]) == (3, ["seed=3"], {"data/a.jsonl": "ab"})
    assert result["packages"]["torch"] == metadata.version("torch")
    assert result["packages"]["lightning"] == metadata.version("lightning")
    assert result["python"] == platform.python_version()
    assert result["cpu_count"] == os.cpu_count()
    assert abs(datetime.now(UTC) - datetime.fromisoformat(result["started"])).total_seconds() < 60
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_package_that_is_absent_is_null(monkeypatch):
    monkeypatch.setattr(module, "_PACKAGES", ("no-such-package-here",))
    assert made()["packages"] == {"no-such-package-here": None}


def test_environment_host_and_user_are_not_in_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("HOME", "/home/alice")
    text = json.dumps(made(overrides=["out=/home/alice/runs/1"], data_sha256={"/home/alice/a.jsonl": "ab"}))
    assert "sk-very-secret" not in text
    assert "alice" not in text
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert '["out=~/runs/1"]' in text
    assert '{"~/a.jsonl": "ab"}' in text


def test_gpus_by_name_and_memory(monkeypatch):
    gpu = type("Properties", (), {"name": "NVIDIA H100", "total_memory": 80 * 2**30})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    assert made()["gpus"] == [{"name": "NVIDIA H100", "memory_gib": 80.0}] * 2


class TestGit:
    @pytest.fixture
    def checkout(self, tmp_path, monkeypatch) -> Path:
        source = tmp_path / "manifest.py"
        source.write_text("")
        monkeypatch.setattr(module, "__file__", str(source))
        git(tmp_path, "init", "-q")
        git(tmp_path, "add", "manifest.py")
        git(tmp_path, "commit", "-q", "-m", "x")
        return tmp_path

    def test_commit_and_changes(self, checkout):
        assert made()["git"] == {"commit": git(checkout, "rev-parse", "HEAD"), "modified": False}
        (checkout / "manifest.py").write_text("changed")
        assert made()["git"]["modified"] is True

    def test_package_installed_inside_another_repository(self, checkout, monkeypatch):
        (checkout / "venv").mkdir()
        (checkout / "venv" / "manifest.py").write_text("")
        monkeypatch.setattr(module, "__file__", str(checkout / "venv" / "manifest.py"))
        assert made()["git"] is None

    def test_no_git(self, checkout, monkeypatch):
        monkeypatch.setenv("PATH", "")
        assert made()["git"] is None


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
