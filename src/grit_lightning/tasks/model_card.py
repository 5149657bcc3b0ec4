"""The model card of an exported run: its base model, training recipe and evaluation results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from grit_lightning.evaluation.evaluation_folder import EvaluationFolder
from grit_lightning.evaluation.metrics import OVERALL
from grit_lightning.evaluation.tables import BRIEF, TITLES, number
from grit_lightning.runs.run_folder import RunFolder

CARD = """\
---
library_name: transformers
pipeline_tag: image-text-to-text
{base}tags:
- grit
- grpo
- visual-reasoning
---

# {name}

{base_name}, trained for {step} steps with `grit_lightning` {version}: {method}

## Use

    pip install "transformers>=5.17" torchvision pillow

```python
{snippet}
```

## Recipe

| | |
|---|---|
{recipe}

Images were read {images}. The prompt, after the image:

    {prompt}

## Evaluation

{evaluation}
"""


def model_card(run: RunFolder, values: Mapping[str, Any], step: int, snippet: str) -> str:
    """Return a model card in the hub's format: YAML front matter, then Markdown.

    Args:
        run: the run; results of its evaluations are read from its ``eval/`` folder.
        values: the run's resolved config.
        step: optimizer steps that the exported weights were trained for.
        snippet: Python code that asks the model about a picture.
    """
    checkpoint = values["model"]["checkpoint"]
    is_local = Path(checkpoint).is_dir()
    is_grpo = "objective" in values["module"]
    return CARD.format(
        base="" if is_local else f"base_model: {checkpoint}\n",
        name=values["name"],
        base_name=Path(checkpoint).name if is_local else checkpoint,
        step=step,
        version=metadata.version("grit-lightning"),
        method="GRPO with GRIT's rewards (arXiv 2505.15879)." if is_grpo else "supervised fine-tuning.",
        snippet=snippet,
        recipe="\n".join(f"| {name} | {value} |" for name, value in _recipe(values, is_grpo).items()),
        images=_images(values["model"]),
        prompt=" ".join(values["prompt"]["template"].split()),
        evaluation=_evaluation(run) or "Not evaluated: run `task=evaluate run=RUN` before exporting to add results.",
    )


def _recipe(values: Mapping[str, Any], is_grpo: bool) -> dict[str, Any]:
    rollout, peft, trainer = values["rollout"], values["peft"], values["trainer"]
    recipe: dict[str, Any] = {
        "data": _data(values["data"].get("train")),
        "optimizer": f"{values['optimizer']['_target_'].rpartition('.')[2]}, learning rate {values['optimizer']['lr']}",
        "schedule": values["scheduler"]["_target_"].rpartition(".")[2],
        "precision": f"{values['model']['dtype']} weights, {trainer['precision']}",
        "trained": f"adapters of rank {peft['rank']} in {', '.join(peft['parts'])}, merged" if peft else "all weights",
        "seed": values["seed"],
    }
    if values["model"]["freeze"] and not peft:
        recipe["trained"] = f"all weights except {', '.join(values['model']['freeze'])}"
    if not is_grpo:
        return recipe
    weights = {name: part["weight"] for name, part in values["reward"]["components"].items() if part["weight"]}
    return recipe | {
        "prompts × completions a step": f"{values['data']['prompts_per_step']} × {rollout['num_generations']}",
        "completion limit, temperature": f"{rollout['max_new_tokens']} tokens, {rollout['temperature']}",
        "weight of the KL term": values["objective"]["beta"],
        "rewards, by weight": ", ".join(f"{name} {weight:g}" for name, weight in weights.items()),
    }


def _data(train: str | Sequence[str | Mapping[str, str]] | None) -> str:
    """Return the names of the training files and folders, as ``data.train`` lists them."""
    entries = [train] if isinstance(train, str) else train or []
    return ", ".join(Path(one if isinstance(one, str) else one["file"]).name for one in entries) or "generated"


def _images(model: Mapping[str, Any]) -> str:
    limits = f"at {model['min_pixels']} to {model['max_pixels']} pixels (Qwen)"
    return f"{limits}, or in at most {model['max_tiles']} tiles (InternVL)"


def _evaluation(run: RunFolder) -> str:
    """Return a table of metrics on held-out samples, from before and after training and from ``task=evaluate``."""
    found: dict[str, Any] = {}
    if (around := run.evaluation / "metrics.json").is_file():
        found |= {f"{when} training": metrics for when, metrics in _read(around).items()}
    for file in sorted(run.evaluation.glob("*/metrics.json")):
        settings = EvaluationFolder(file.parent).settings()
        if settings is not None:
            prompt = " ".join(settings["prompt"]["template"].split())[:40]
            found[f"{file.parent.name} ({prompt}…; judge: {settings['judge']})"] = _read(file)["metrics"]
    names = (*BRIEF, "samples")
    rows = [[name, *(number(metrics[OVERALL].get(key), key) for key in names)] for name, metrics in found.items()]
    header = ["", *(TITLES[name] for name in names)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]) if rows else ""


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
