"""Fixtures shared by several test modules: the tiny model, prompts and groups, and a local HTTP server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image

from grit_lightning.app import config
from grit_lightning.model.backbones.pretrained import PretrainedBackbone
from grit_lightning.system.paths import conf_dir
from grit_lightning.types import Group, Prompt
from support.hostile_server import HostileServer, serve
from support.hub_server import HubServer, serve_hub
from support.samples import one_image

pytest_plugins = ["support.cli_fixtures", "support.judge_fixtures", "support.real_size"]


SLOW_PLACES = ("integration", "tasks", "test_benchmarks.py", "test_distributed.py", "test_docs.py", "test_notebooks.py")
"""Folders and files whose tests run whole commands or several processes: ``make test-fast`` leaves them out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow places, and run slow tests first: then no worker is left alone with a long file at the end."""
    for item in items:
        if set(item.path.parts) & set(SLOW_PLACES):
            item.add_marker("slow")
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)


@pytest.fixture(scope="session", autouse=True)
def _own_process_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use one torch thread, because threads that share a core slow each other down, and a cache folder per session."""
    torch.set_num_threads(1)
    for name, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(name) == signal.SIG_IGN:  # the suite was started by nohup, or in the background of a script
            signal.signal(name, usual)
    os.environ["GRIT_LIGHTNING_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def compose_config(_own_process_settings: None) -> Callable[..., DictConfig]:
    """Compose the application's config with overrides, as the command line does."""
    config.register()

    def compose_(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            # Random weights: what is tested holds for any, and theirs are not certain of anything.
            return compose(
                "config", ["name=test", "threads=1", "model.random_weights_seed=0", "model.freeze=[]", *overrides]
            )

    return compose_


@pytest.fixture(scope="session")
def backbone(compose_config: Callable[..., DictConfig]) -> PretrainedBackbone:
    """The backbone of the bundled tiny model, with random weights."""
    return instantiate(compose_config().model)


@pytest.fixture
def make_prompt(backbone: PretrainedBackbone) -> Callable[..., Prompt]:
    """Return a function that encodes a prompt about an image of random pixels of the given size."""

    def make(
        index: int = 0, size: tuple[int, int] = (112, 112), question: str = "How many red circles are there?"
    ) -> Prompt:
        pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(index))
        sample = one_image(
            f"noise/{index}", question, "2", Path("noise.png"), size, (), "tallyqa", "train", f"noise:{index}"
        )
        return backbone.encode(sample, [Image.fromarray(pixels.byte().numpy())])

    return make


@pytest.fixture
def prompts(make_prompt: Callable[..., Prompt]) -> list[Prompt]:
    """Three prompts of different lengths about images of different sizes."""
    return [
        make_prompt(0, (224, 112)),
        make_prompt(1, (130, 200), "Is it?"),
        make_prompt(2, (300, 300), "What is left of the very big green star in the middle of the picture?"),
    ]


@pytest.fixture
def make_group(backbone: PretrainedBackbone) -> Callable[..., Group]:
    """Return a function that makes a group of completions of random tokens with the given lengths."""
    allowed = torch.tensor(sorted(set(range(len(backbone.tokenizer))) - set(backbone.banned_token_ids)))

    def make(prompt: Prompt, lengths: list[int], slot: int = 0) -> Group:
        generator = torch.Generator().manual_seed(1000 + slot)
        ids = [allowed[torch.randint(len(allowed), (length,), generator=generator)].tolist() for length in lengths]
        return Group(slot, prompt, tuple(backbone.completion(tokens, "stop", prompt) for tokens in ids))

    return make


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileServer]:
    """A local HTTP server for one test; see ``support.hostile_server``."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as home:
        yield home


@pytest.fixture
def hub_server() -> Iterator[HubServer]:
    """A local stand-in of the Hugging Face hub for one test; see ``support.hub_server``."""
    with serve_hub() as home:
        yield home
