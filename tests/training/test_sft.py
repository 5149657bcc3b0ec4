"""Tests of supervised fine-tuning: its gradient against a loop over examples, its targets and its lessons."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from torch import Tensor

from grit_lightning.app import config
from grit_lightning.data.shapes.lesson_datamodule import LessonDataModule
from grit_lightning.errors import DataError
from grit_lightning.model.packing import PackedRow, learned, pack
from grit_lightning.training.sft import rescale_boxes, share_prefix, target_text
from grit_lightning.types import ImageFile, Prompt, Region, Sample

PLAIN_GRADIENT = ("task=sft", "optimizer=sgd", "optimizer.lr=1.0", "scheduler=constant", "module.max_grad_norm=1e9")


def sample(**fields: Any) -> Sample:
    values = {
        "id": "a/1", "question": "How many?", "answer": "1", "images": (ImageFile(Path("a.png"), (100, 50)),),
        "regions": (Region((10.0, 10.0, 50.0, 30.0)),), "dataset": "tallyqa", "split": "train", "source": "a.jsonl:1",
    }  # fmt: skip
    return Sample(**{**values, **fields})


class Run:
    """A run of one step that writes no files: its weights before and after."""

    def __init__(self, cfg: Any, data: Any = None) -> None:
        values = config.check(cfg)
        self.module = instantiate(values["module"])
        self.data = data or instantiate(values["data"])
        self.data.attach(self.module.backbone.encode)
        self.trainer = L.Trainer(
            max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[Before(self)],
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*(eval mode|many workers|litlogger).*")
            self.trainer.fit(self.module, self.data)
        self.after = weights(self.module)
        self.metrics = {key: float(value) for key, value in self.trainer.callback_metrics.items()}

    @property
    def change(self) -> dict[str, Tensor]:
        return {name: self.after[name] - value for name, value in self.before.items()}


class Before(L.Callback):
    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        self.run.before = weights(module)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self.run.batch = batch


def weights(module: Any) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.policy.model.named_parameters()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert max(value.abs().max() for value in first.values()) > 1e-3  # there is something to compare
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")


def loop_loss(model: Any, backbone: Any, prompts: list[Prompt]) -> Tensor:
    """Return the mean −log p of the target tokens from one plain forward pass per example."""
    total, count = torch.zeros(()), 0
    for prompt in prompts:
        target = torch.tensor(backbone.target(target_text(prompt.sample, prompt.box_spaces), prompt).token_ids)
        ids = torch.cat([prompt.input_ids_S, target])[None]
        is_image = (ids == backbone.config.image_token_id).int()
        logits = model(input_ids=ids, mm_token_type_ids=is_image, **prompt.vision).logits[0].clone()
        logits[:, list(backbone.banned_token_ids)] = -torch.inf
        logprobs = logits.log_softmax(-1)[prompt.num_tokens - 1 : -1].gather(1, target[:, None])
        total, count = total - logprobs.sum(), count + len(target)
    return total / count


@pytest.mark.parametrize("data", ["files", "lessons"])
def test_gradient_is_that_of_a_loop_over_examples(compose_config: Callable[..., Any], data: str) -> None:
    lessons = ("data=shapes_lessons", "prompt=plain", "data.scenes_per_step=3", "data.few_shapes=[]")
    run = Run(compose_config(*PLAIN_GRADIENT, *(lessons if data == "lessons" else ())))
    prompts = [prompt for _, prompt in run.batch.prompts]
    assert len(prompts) == {"files": 4, "lessons": 9}[data]
    model = run.module.backbone.load_model()
    loss = loop_loss(model, run.module.backbone, prompts)
    loss.backward()
    assert run.metrics["policy/loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert_same(run.change, {name: -value.grad for name, value in model.named_parameters()})


def test_gradient_does_not_depend_on_the_split_into_passes(compose_config: Callable[..., Any]) -> None:
    whole = Run(compose_config(*PLAIN_GRADIENT))
    split = Run(compose_config(*PLAIN_GRADIENT, "module.max_tokens_per_pass=1", "module.logits_chunk=7"))
    assert_same(whole.change, split.change)


def test_a_shared_image_is_packed_once_and_keeps_every_token(backbone: Any) -> None:
    image = Image.effect_noise((112, 84), 80).convert("RGB")
    questions = ("How many red circles are there?", "How many red stars are there?", "What is above the blue star?")
    examples = []
    for question in questions:
        prompt = backbone.encode(sample(question=question), [image])
        examples.append((prompt, backbone.target(f"<answer> {question} </answer>", prompt)))
    group = share_prefix(examples, slot=0)
    assert [(*group.prompt.input_ids_S.tolist(), *completion.token_ids) for completion in group.completions] == [
        (*prompt.input_ids_S.tolist(), *target.token_ids) for prompt, target in examples
    ]
    assert [len(c.token_ids) - c.num_given for c in group.completions] == [len(t.token_ids) for _, t in examples]
    rows = [PackedRow(0, (0, 1, 2), group.prompt.num_tokens + sum(len(c.token_ids) - 1 for c in group.completions))]
    packed = pack(rows, [group])
    assert packed.vision["image_grid_thw"].shape[0] == 1
    assert int(learned([group]).sum()) == sum(len(target.token_ids) for _, target in examples)


def test_one_example_keeps_its_prompt(make_prompt: Callable[..., Prompt], backbone: Any) -> None:
    prompt = make_prompt()
    target = backbone.target("two", prompt)
    group = share_prefix([(prompt, target)], slot=7)
    assert group.slot == 7
    assert torch.equal(group.prompt.input_ids_S, prompt.input_ids_S)
    assert group.completions == (target,)


def test_targets_end_the_turn(make_prompt: Callable[..., Prompt], backbone: Any) -> None:
    target = backbone.target("<answer> 2 </answer>", make_prompt())
    assert backbone.tokenizer.decode(target.token_ids) == "<answer> 2 </answer><|im_end|>"
    assert target.token_ids[-1] in backbone.eos_token_ids


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {},
            '<think> I look for what is asked: {"bbox_2d":[20,20,100,60]}. </think> '
            "<rethink> There is 1 box. </rethink> <answer> 1 </answer>",
        ),
        (
            {"regions": (), "answer": "0"},
            "<think> I look for what is asked and find none. </think> "
            "<rethink> There are 0 boxes. </rethink> <answer> 0 </answer>",
        ),
        ({"completion": "At [10, 5,  20.5,30] and 1,2,3."}, "At [20, 10,  41,60] and 1,2,3."),
        ({"completion": "Yes", "regions": ()}, "Yes"),
    ],
)
def test_target_text_is_the_given_completion_or_made_of_boxes_in_box_space(fields: dict[str, Any], text: str) -> None:
    assert target_text(sample(**fields), [(200, 100)]) == text


def test_nothing_to_learn_is_an_error_that_names_the_line() -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:1.*completion.*bboxs"):
        target_text(sample(regions=()), [(200, 100)])


@pytest.mark.parametrize(
    "text",
    [
        "1,2,3",
        "1.2.3,4,5,6",
        "a1,2,3,4",
        "no numbers",
        "",
        "in 1999, 2001, 2005, 2010",  # years are no box in this image
        "for $1, 2, 3, 4",
        "-1, 2, 3, 4",
        "4, 2, 3, 9",  # not ordered
        "1, 2, 3, 10.5",  # outside
        "1, 2, 3, 4, 5",
        "1, 2, 3, 4th",
        "1,000, 2, 3",
    ],
)
def test_numbers_that_are_no_box_inside_the_image_are_not_rescaled(text: str) -> None:
    assert rescale_boxes(text, sources=[(10, 10)], targets=[(100, 100)]) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"bbox_2d": [1, 2.5, 3e0, 4]}', '{"bbox_2d": [10, 50, 30, 80]}'),
        ("{'bbox_2d': [[1, 2, 3, 4],[5, 6, 7, 8]]}", "{'bbox_2d': [[10, 40, 30, 80],[50, 120, 70, 160]]}"),
        ("<ref>cat</ref><box>[[1, 2, 3, 4]]</box>", "<ref>cat</ref><box>[[10, 40, 30, 80]]</box>"),
        ("<box>[[1,2,3,4], [5,6,7,8]]</box>", "<box>[[10,40,30,80], [50,120,70,160]]</box>"),
        ("<|box_start|>(1,2),(3,4)<|box_end|> in 1999", "<|box_start|>(10,40),(30,80)<|box_end|> in 1999"),
        ("(1,2),(3, 4)", "(10,40),(30, 80)"),
        ("1, 2, 3, 4 and 1, 2, 3, 4 of 5", "10, 40, 30, 80 and 10, 40, 30, 80 of 5"),
    ],
)
def test_every_native_form_is_rescaled(text: str, expected: str) -> None:
    assert rescale_boxes(text, sources=[(10, 10)], targets=[(100, 200)]) == expected
    assert target_text(sample(completion=text), [(200, 200)]) != text


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ('{"bbox_2d": [1, 2, 3]}', "[1, 2, 3]"),
        ('{"bbox_2d": [3, 2, 1, 4]}', "[3, 2, 1, 4]"),
        ("{'bbox_2d': [1, 2, 101, 4]}", "[1, 2, 101, 4]"),
        ('{"bbox_2d": [[1, 2, 3, 4], [5, 6]]}', "[[1, 2, 3, 4], [5, 6]]"),
        ('{"bbox_2d": [x1, 2, 3, 4]}', "[x1, 2, 3, 4]"),
        ('{"bbox_2d": 7}', "7"),
        ("<box>[[1, 2, 3, 1000]]</box>", "[[1, 2, 3, 1000]]"),
        ("<box>cat</box>", "cat"),
        ("<|box_start|>(64,48),(320,240)<|box_end|>", "(64,48),(320,240)"),
        ("<|box_start|>(1,2)<|box_end|>", "(1,2)"),
    ],
)
def test_a_native_form_that_is_no_box_inside_the_image_is_refused_by_file_and_line(place: str, shown: str) -> None:
    text = f"I see [1, 2, 3, 4] and {place}."
    with pytest.raises(DataError) as error:
        target_text(sample(completion=text), [(200, 100)])
    assert str(error.value).startswith(f"a.jsonl:1: field 'completion' has {shown!r} as a box; expected x1, y1, ")


def test_lessons_are_endless_and_never_repeat(compose_config: Callable[..., Any]) -> None:
    cfg = compose_config("data=shapes_lessons", "prompt=plain", "data.scenes_per_step=2", "task=sft")
    cfg.data.few_shapes = [{"until_step": 2, "shapes": 1}]
    values = config.check(cfg)
    data: LessonDataModule = instantiate(values["data"])
    data.attach(instantiate(values["model"]).encode)
    batches = [batch for _, batch in zip(range(4), data.train_dataloader(), strict=False)]
    assert [batch.step for batch in batches] == [0, 1, 2, 3]
    assert [[slot for slot, _ in batch.prompts] for batch in batches] == [[0, 0, 0, 1, 1, 1]] * 4
    samples = [prompt.sample for batch in batches for _, prompt in batch.prompts]
    assert len({s.image for s in samples}) == 8
    assert all(s.completion.count("bbox_2d") <= 1 for s in samples[:12])  # one shape, three lessons about it
    assert any(s.completion.count("bbox_2d") > 1 for s in samples[12:])
    asked = [s.question for s in samples[12:]]
    assert sum(question.endswith("Think with boxes.") for question in asked) == 4
    again = next(iter(data.train_dataloader()))
    assert [prompt.text for _, prompt in again.prompts] == [prompt.text for _, prompt in batches[0].prompts]


def test_the_completion_field_of_a_record_is_read(tmp_path: Path) -> None:
    from grit_lightning.data.records import read_samples

    line = {"question": "Q", "answer": 1, "image": "a.png", "width": 10, "height": 10, "completion": "I see [1,2,3,4]."}
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(line) + "\n" + json.dumps({**line, "completion": ["x"]}) + "\n")
    good, bad = read_samples(file, tmp_path)
    assert isinstance(good, Sample)
    assert good.completion == "I see [1,2,3,4]."
    assert isinstance(bad, DataError)
    assert "completion" in str(bad)
    assert ":2" in str(bad)
