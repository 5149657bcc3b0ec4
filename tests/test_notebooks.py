"""Tests that execute the notebooks cell by cell on a run of this module."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageColor

from grit_lightning.model.backbones.pretrained import PretrainedBackbone
from grit_lightning.report.drawing import COLOURS
from grit_lightning.report.rows import step_records
from grit_lightning.tasks.train import train_policy
from grit_lightning.types import Completion

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# In the pixels of the resized image: a box, and one whose corners are inverted.
TEXT = (
    '<think> {"bbox_2d": [30, 20, 100, 70], "label": "star"} {"bbox_2d": [60, 100, 40, 80]} </think> '
    "<rethink> one </rethink> <answer> 1</answer>"
)


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def execute(notebook: Path, **parameters: Any) -> dict[str, Any]:
    """Run the code cells in order, set parameters after the cell tagged ``parameters``, and return all variables."""
    namespace: dict[str, Any] = {}
    for number, cell in enumerate(code_cells(notebook)):
        exec(compile("".join(cell["source"]), f"{notebook.name}[{number}]", "exec"), namespace)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert parameters.keys() <= namespace.keys()
            namespace |= parameters
    return namespace


@pytest.fixture(scope="module")
def run(compose_config: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps over all 20 samples; every completion reads ``TEXT``, as random weights write no boxes."""

    def completion(self: PretrainedBackbone, token_ids: Any, finish: Any, prompt: Any) -> Completion:
        return Completion(tuple(token_ids), TEXT, finish, prompt.box_spaces)

    options = (
        "trainer.max_steps=2", "trainer.accelerator=cpu", "data.prompts_per_step=10", "data.val=null",
        "rollout.num_generations=2", "rollout.max_new_tokens=4", "callbacks.checkpoint.last_every_n_steps=null",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainedBackbone, "completion", completion)
        out = tmp_path_factory.mktemp("runs") / "runs" / "made_here"
        return train_policy(compose_config(*options, f"out={out}"), report=False).run.path


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Image.Image]:
    """Collect the images that the notebook displays."""
    images: list[Image.Image] = []
    module = ModuleType("IPython.display")
    module.display = images.append
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return images


def extent(image: Image.Image, color: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """Return the box around the pixels of exactly this colour, its last column and row included, or ``None``."""
    distance = ImageChops.difference(image, Image.new("RGB", image.size, color))
    red, green, blue = (band.point(lambda value: 255 * (value == 0)) for band in distance.split())
    box = ImageChops.darker(ImageChops.darker(red, green), blue).getbbox()
    return None if box is None else (box[0], box[1], box[2] - 1, box[3] - 1)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_committed_without_outputs(notebook: Path) -> None:
    cells = code_cells(notebook)
    assert cells
    assert [(cell["outputs"], cell["execution_count"]) for cell in cells] == [([], None)] * len(cells)


@pytest.mark.filterwarnings("ignore")  # of the libraries, in the fixture's run
class TestInspectRollouts:
    notebook = FOLDER / "inspect_rollouts.ipynb"

    def test_texts_rewards_and_advantages_are_shown(self, run: Path, shown: list, capsys: Any) -> None:
        execute(self.notebook, RUN=str(run), STEP=1, PROMPTS=2)
        out = capsys.readouterr().out
        assert [line.split()[:4] for line in out.splitlines() if line.startswith("step ")] == [
            ["step", "1", "completions", "20"],
            ["step", "2", "completions", "20"],
        ]
        assert out.count("== step 1, prompt") == len(shown) == 2, "each image once"
        assert out.count(TEXT) == 4  # two prompts, two completions each
        assert "How many" in out
        assert "reference answer: " in out
        assert "advantage +0.000  total" in out
        assert "think_rethink 0.5" in out
        assert "box_iou unscored" in out

    def test_boxes_are_drawn_in_original_pixels(self, run: Path, shown: list) -> None:
        for step in (1, 2):
            execute(self.notebook, RUN=str(run), STEP=step, PROMPTS=10)
        records = [one for step in (1, 2) for one in step_records(run, step) if one["completion_index"] == 0]
        assert any(record["image_size"] != record["box_space"] for record in records)  # else there is nothing to tell
        last = ImageColor.getrgb(COLOURS[1])  # the second completion covers the first, which wrote the same
        for record, image in zip(records, shown, strict=True):
            original = Image.open(record["image"]).convert("RGB")
            assert image.size == original.size == tuple(record["image_size"])
            x_scale, y_scale = (a / b for a, b in zip(record["image_size"], record["box_space"], strict=True))
            assert extent(image, last) == pytest.approx(
                (30 * x_scale, 20 * y_scale, 100 * x_scale, 100 * y_scale), abs=2
            )
            changed = ImageChops.difference(original, image).convert("L").point(lambda value: 255 * (value > 0))
            assert 0 < sum(value > 0 for value in changed.tobytes()) < 0.5 * image.width * image.height

    def test_the_notebook_runs_as_plain_python_on_the_newest_run(
        self, run: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        monkeypatch.setitem(sys.modules, "IPython", None)
        monkeypatch.chdir(run.parents[1])
        namespace = execute(self.notebook)
        assert namespace["run"].resolve() == run.resolve()
        assert namespace["group"][0]["step"] == 2
        assert capsys.readouterr().out.count("[image of ") == 4
