"""``task=demo``: serve a page on which a model answers questions about images."""

from __future__ import annotations

import logging
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from grit_lightning.app.overrides import changed_run_config, given_overrides
from grit_lightning.app.startup import prepare
from grit_lightning.demo.answerer import Answerer
from grit_lightning.errors import ConfigError, UserError
from grit_lightning.model.backbones.prompts import known_prompts, prompt_name, prompt_values, prompt_version
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.report.choice import evenly_spaced
from grit_lightning.runs import run_folder as runs
from grit_lightning.system.slow import announced
from grit_lightning.training.checkpoint_weights import load_weights, read_weights, require_fit

log = logging.getLogger(__name__)

EXAMPLES = 6
"""Number of samples of the training data to choose from."""


def serve_demo(cfg: DictConfig, *, port: int | None, share: bool, open_browser: bool, max_upload_mb: float) -> None:
    """Load the config's model or, with ``run``, the policy of a run, and serve the page until it is stopped.

    Args:
        cfg: the composed config.
        port: the port on 127.0.0.1; ``None`` for the first free one from 7860.
        share: whether Gradio makes a public address for the page.
        open_browser: whether to open the page in a browser.
        max_upload_mb: largest size of an uploaded image file in MB.

    Raises:
        UserError: Gradio is not installed, the model or the run cannot be used, or the port is taken.
    """
    try:
        from grit_lightning.demo.page import build, launch
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ConfigError("task=demo needs Gradio: pip install 'grit-lightning[demo]'") from error
    if max_upload_mb <= 0:
        raise ConfigError(f"task.max_upload_mb is {max_upload_mb}, expected a number above 0")
    answerer, values, title = _answerer(cfg)
    page = build(answerer, title=title, prompt=_chosen(values), examples=_examples(values))
    try:
        local, public = launch(page, port=port, share=share, open_browser=open_browser, max_upload_mb=max_upload_mb)
    except OSError as error:
        raise ConfigError(f"task.port is {port}, which cannot be used: {error}") from error
    print(f"{title}\n\nopen {local} (Ctrl-C ends the demo)", flush=True)
    if public:
        print(f"anybody can open {public}", flush=True)
    try:
        while True:
            time.sleep(3600)
    finally:
        page.close(verbose=False)


def _answerer(cfg: DictConfig) -> tuple[Answerer, dict[str, Any], str]:
    """Load the model; return what answers, the resolved config, and the model's name."""
    weights, title = None, None
    if cfg.run is not None:
        run, checkpoint = runs.open_checkpoint(Path(cfg.run).expanduser().absolute())
        weights = read_weights(checkpoint)
        cfg = changed_run_config(cfg, run, given_overrides())
        title = f"{run.path}, step {weights.step}"
    values = prepare(cfg)
    backbone: Backbone = instantiate(values["model"])
    if weights is not None:
        require_fit(backbone.outline(), weights)
    with announced("loading the model"):
        model = backbone.load_model()
        if weights is not None:
            load_weights(model, weights)
        model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

    @cache
    def backbone_of(name: str) -> Backbone:
        prompt = values["prompt"] if name == _chosen(values) else prompt_values(name)
        asking: Backbone = instantiate({**values["model"], "prompt": prompt["template"], "prefill": prompt["prefill"]})
        return asking

    answerer = Answerer(
        model,
        backbone_of,
        list(dict.fromkeys([_chosen(values), *known_prompts()])),
        instantiate(values["reward"]),
        max_new_tokens=values["evaluation"]["max_new_tokens"],
        stop=values["evaluation"]["stop"],
        temperature=values["rollout"]["temperature"],
        max_prompt_tokens=values["data"]["max_prompt_tokens"],
    )
    return answerer, values, title or f"model {values['model']['checkpoint']}"


def _chosen(values: dict[str, Any]) -> str:
    """Return the name of the config's prompt, or its version if it is not one of this package."""
    return prompt_name(prompt_version(values["prompt"]["template"], values["prompt"]["prefill"]))


def _examples(values: dict[str, Any]) -> list[Any]:
    """Return examples from the training data; none if it cannot be read, which a demo does not need."""
    from grit_lightning.demo.page import Example

    try:
        datamodule = instantiate({**values["data"], "check": "headers"})
        samples = [one for one in datamodule.train_samples() if len(one.images) == 1]
    except UserError as error:
        log.warning("no examples: %s", error)
        return []
    return [
        Example(str(samples[index].image), samples[index].question, samples[index].answer)
        for index in evenly_spaced(range(len(samples)), EXAMPLES)
    ]
