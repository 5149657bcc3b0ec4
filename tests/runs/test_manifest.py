"""Tests of the run manifest: its contents, and what it must not reveal."""

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


def test_the_manifest_holds_inputs_package_versions_and_machine():
    result = made()
    assert (result["seed"], result["overrides"], result["data_sha256"]) == (3, ["seed=3"], {"data/a.jsonl": "ab"})
    assert result["packages"]["torch"] == metadata.version("torch")
    assert result["packages"]["lightning"] == metadata.version("lightning")
    assert result["python"] == platform.python_version()
    assert result["cpu_count"] == os.cpu_count()
    assert abs(datetime.now(UTC) - datetime.fromisoformat(result["started"])).total_seconds() < 60
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_an_absent_package_has_version_null(monkeypatch):
    monkeypatch.setattr(module, "_PACKAGES", ("no-such-package-here",))
    assert made()["packages"] == {"no-such-package-here": None}


def test_the_manifest_holds_no_environment_host_or_user(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("HOME", "/home/alice")
    text = json.dumps(made(overrides=["out=/home/alice/runs/1"], data_sha256={"/home/alice/a.jsonl": "ab"}))
    assert "sk-very-secret" not in text
    assert "alice" not in text
    assert socket.gethostname() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert '["out=~/runs/1"]' in text
    assert '{"~/a.jsonl": "ab"}' in text


def test_gpus_are_listed_by_name_and_memory(monkeypatch):
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

    def test_git_holds_the_commit_and_whether_files_are_modified(self, checkout):
        assert made()["git"] == {"commit": git(checkout, "rev-parse", "HEAD"), "modified": False}
        (checkout / "manifest.py").write_text("changed")
        assert made()["git"]["modified"] is True

    def test_an_untracked_package_inside_another_repository_has_no_git_entry(self, checkout, monkeypatch):
        (checkout / "venv").mkdir()
        (checkout / "venv" / "manifest.py").write_text("")
        monkeypatch.setattr(module, "__file__", str(checkout / "venv" / "manifest.py"))
        assert made()["git"] is None

    def test_without_a_git_program_there_is_no_git_entry(self, checkout, monkeypatch):
        monkeypatch.setenv("PATH", "")
        assert made()["git"] is None


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
