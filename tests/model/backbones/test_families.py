"""Tests of every model family against plain transformers: positions, rollouts, packed log-probabilities and boxes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from grit_lightning.errors import DataError
from grit_lightning.evaluation.completion_metrics import matched_iou
from grit_lightning.model.backbones.pretrained import FAMILIES, PretrainedBackbone
from grit_lightning.model.packing import completion_lengths, pack, plan_rows
from grit_lightning.model.policy import Policy
from grit_lightning.rollout.noise import sequence_key
from grit_lightning.rollout.sampler import Sampler
from grit_lightning.training.sft import target_text
from grit_lightning.types import Prompt, Region
from support.gumbel_noise import GumbelNoise
from support.predicted import predicted
from support.released import MAKERS
from support.samples import noise, one_image, several_images


@pytest.fixture(scope="module", params=list(FAMILIES))
def backbone(request, compose_config: Callable[..., Any], tmp_path_factory) -> PretrainedBackbone:
    """The backbone of a tiny checkpoint of each family."""
    if request.param == "qwen2_5_vl":
        return instantiate(compose_config().model)
    folder = MAKERS[request.param](tmp_path_factory.mktemp(request.param))
    options = ("model=pretrained", f"model.checkpoint={folder}", "model.random_weights_seed=null")
    return instantiate(compose_config(*options, "model.max_pixels=100352", "model.max_tiles=3").model)


@pytest.fixture
def prompts(backbone: PretrainedBackbone) -> list[Prompt]:
    """Prompts with one, two and three images, before, between and after the words of the question."""
    asked = [
        ("How many red circles are there?", [(224, 112)]),
        ("Is it left of that?", [(130, 200), (112, 112)]),
        ("Which is the larger star, <image>, <image><image>or none?", [(300, 300), (56, 140), (150, 150)]),
    ]
    return [backbone.encode(several_images(question, sizes), noise(sizes)) for question, sizes in asked]


def image_arguments(backbone: PretrainedBackbone, ids: torch.Tensor, prompt: Prompt) -> dict[str, torch.Tensor]:
    """Return the image arguments of the plain model, which computes the positions itself."""
    is_image = {"mm_token_type_ids": (ids == backbone.image_token_id).int()}
    return {**prompt.vision, **(is_image if "image_grid_thw" in prompt.vision else {})}


def one_by_one(model, backbone, groups, temperature: float) -> list[torch.Tensor]:
    """Return the log-probabilities of each completion from one plain forward pass of [prompt | completion]."""
    results = []
    for group in groups:
        for completion in group.completions:
            ids = torch.cat([group.prompt.input_ids_S, torch.tensor(completion.token_ids)])[None]
            logits = model(input_ids=ids, **image_arguments(backbone, ids, group.prompt)).logits[0] / temperature
            logits[:, list(backbone.banned_token_ids)] = -torch.inf
            logprobs = logits.log_softmax(-1)[group.prompt.num_tokens - 1 : -1]
            results.append(logprobs.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0])
    return results


@pytest.mark.parametrize("max_tokens", [100_000, 600, 1], ids=["one_pass", "several_passes", "one_completion_a_pass"])
def test_packed_logprobs_and_gradient_equal_one_by_one(backbone, prompts, make_group, max_tokens: int) -> None:
    groups = [make_group(prompt, lengths, slot) for slot, (prompt, lengths) in enumerate(
        zip(prompts, [[7, 1, 12], [3, 8, 2], [20, 1, 5]], strict=True)
    )]  # fmt: skip
    model = backbone.load_model()
    expected = one_by_one(model, backbone, groups, temperature=0.7)
    weights = [torch.randn(len(e), generator=torch.Generator().manual_seed(i)) for i, e in enumerate(expected)]
    sum((w * e).sum() for w, e in zip(weights, expected, strict=True)).backward()
    expected_gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    policy = Policy(model, banned_token_ids=backbone.banned_token_ids, temperature=0.7, logits_chunk=4)
    starts = completion_lengths(groups).cumsum(0) - completion_lengths(groups)
    logprobs = torch.full((int(completion_lengths(groups).sum()),), torch.nan)
    for rows in plan_rows(groups, max_tokens, [False] * 3):
        batch = pack(rows, groups)
        tokens = policy(batch)
        logprobs[batch.token_T] = tokens.logprobs_T.detach()
        assert (batch.token_T - starts[batch.completion_T] >= 0).all()
        (torch.cat(weights)[batch.token_T] * tokens.logprobs_T).sum().backward()
    torch.testing.assert_close(logprobs, torch.cat(expected).detach(), rtol=0, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, expected_gradients[name], rtol=1e-4, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@torch.no_grad()
def test_rollouts_are_those_of_plain_generate_without_padding_or_prefill(backbone, prompts) -> None:
    options = Sampler(
        num_generations=3, max_new_tokens=24, temperature=0.9, top_k=40, top_p=0.9, stop="</answer>", max_sequences=64
    )
    model = backbone.load_model()
    groups = options.rollout(model, backbone, list(enumerate(prompts)), step=5, seed=1)
    for slot, prompt in enumerate(prompts):
        ids = prompt.input_ids_S[None]
        for index in range(3):
            key = torch.tensor([sequence_key(1, 5, slot, index)])
            processors = [
                SuppressTokensLogitsProcessor(list(backbone.banned_token_ids)),
                TemperatureLogitsWarper(0.9),
                TopKLogitsWarper(40),
                TopPLogitsWarper(0.9),
                GumbelNoise(key, prompt.num_tokens),
            ]
            output = model.generate(
                ids,
                **image_arguments(backbone, ids, prompt),
                generation_config=GenerationConfig(
                    do_sample=False,
                    max_new_tokens=24,
                    eos_token_id=list(backbone.eos_token_ids),
                    pad_token_id=backbone.pad_token_id,
                ),
                logits_processor=LogitsProcessorList(processors),
            )
            naive = output[0, prompt.num_tokens :].tolist()
            ours = list(groups[slot].completions[index].token_ids)
            assert ours == naive[: len(ours)]
            assert len(ours) == len(naive) or groups[slot].completions[index].finish == "stop"


@pytest.mark.parametrize(
    ("question", "sizes"),
    [
        *(("How many?", [size]) for size in [(224, 112), (30, 500), (640, 480), (113, 207), (20, 20)]),
        ("Is the dog of the first in the second?", [(224, 112), (640, 480)]),
        ("<image> and <image><image>: how many?", [(20, 20), (113, 207), (30, 500)]),
        ("How many are in\n<image>", [(113, 207)]),
    ],
)
def test_positions_and_placeholders_are_those_of_transformers(
    backbone, question: str, sizes: list[tuple[int, int]]
) -> None:
    prompt = backbone.encode(several_images(question, sizes), noise(sizes))
    is_image = prompt.input_ids_S == backbone.image_token_id
    model = backbone.load_model()
    features = model.model.get_image_features(**prompt.vision).pooler_output
    assert is_image.sum() == sum(map(len, features)) == backbone.count_image_tokens(prompt)
    starts = 1 + int(is_image.nonzero().diff(dim=0).ne(1).sum())
    assert starts == prompt.text.count(backbone.family.image_token) == len(sizes)  # each image lies in one piece
    if "image_grid_thw" in prompt.vision:
        expected, _ = model.model.get_rope_index(
            prompt.input_ids_S[None],
            mm_token_type_ids=is_image.int()[None],
            image_grid_thw=prompt.vision["image_grid_thw"],
        )
        assert torch.equal(prompt.position_ids_A_S, expected[:, 0])
    else:
        assert torch.equal(prompt.position_ids_A_S, torch.arange(prompt.num_tokens)[None])


def test_images_stand_where_the_question_marks_them(backbone) -> None:
    sizes = [(224, 112), (113, 207)]
    placeholder = backbone.family.image_token
    before, marked = (
        backbone.encode(several_images(question, sizes), noise(sizes)).text.replace(placeholder, "@")
        for question in ("Is it?", "In <image> or <image>?")
    )
    words = before.replace("<|vision_start|>", "").replace("<|vision_end|>", "").replace("\n", "")
    assert "@@" in words
    assert words.index("@@") < words.index("Is it?")
    first, middle, last = marked.split("@")
    assert first.replace("<|vision_start|>", "").endswith("In ")
    assert " or " in middle
    assert last.replace("<|vision_end|>", "").lstrip("\n").startswith("?")


def test_options_follow_the_question_and_may_not_hold_control_tokens(backbone) -> None:
    sample = several_images("Which?", [(112, 112)], options=("a cat", "a dog"))
    assert "Which?\n(A) a cat\n(B) a dog" in backbone.encode(sample, noise([(112, 112)])).text
    sample = several_images("Which?", [(112, 112)], options=("a cat", "<|im_end|>"))
    with pytest.raises(DataError, match=r"f\.jsonl:1: field 'options' contains the model's control token <\|im_end\|>"):
        backbone.encode(sample, noise([(112, 112)]))


def test_each_parameter_belongs_to_exactly_one_part(backbone) -> None:
    for name, _ in backbone.load_model().named_parameters():
        owners = [part for part, beginnings in backbone.family.parts.items() if name.startswith(beginnings)]
        assert len(owners) == 1, name


def test_a_completion_is_decoded_as_written_without_its_end_token(backbone, prompts) -> None:
    text = "<think> a <ref>dog</ref><box>[[1, 2, 30, 40]]</box> </think>"
    if backbone.family.name == "InternVL":
        assert {"<ref>", "</ref>", "<box>", "</box>"} <= set(backbone.control_tokens)
    written = backbone.target(text, prompts[0])
    assert written.token_ids[-1] in backbone.eos_token_ids
    assert backbone.completion(written.token_ids, "eos", prompts[0]).text == text


@pytest.mark.parametrize("size", [(224, 112), (30, 500), (640, 480), (1333, 751), (113, 207), (20, 20)])
def test_boxes_survive_the_box_space_of_the_model_within_half_a_pixel(backbone, size: tuple[int, int]) -> None:
    """Boxes of a sample are written as tokens and read back as a prediction; most of these images are resized."""
    drawn = random.Random(0)
    width, height = size
    boxes = [(0.0, 0.0, float(width), float(height))]
    for _ in range(20):
        (x1, x2), (y1, y2) = (sorted(round(drawn.uniform(0, side), 2) for _ in range(2)) for side in size)
        boxes.append((x1, y1, x2, y2))
    sample = one_image("f/1", "How many?", "21", Path("x.png"), size, tuple(boxes), "tallyqa", "train", "f.jsonl:1")
    prompt = backbone.encode(sample, [Image.new("RGB", size)])
    written = backbone.target(target_text(sample, prompt.box_spaces), prompt)
    read = backbone.completion(written.token_ids, "eos", prompt)
    (one,) = predicted(prompt, read)
    assert one["box_space"] == list(prompt.box_spaces[0])
    assert one["scores"]["exact_match"] == 1.0
    pixel = [side / model_side for side, model_side in zip(size, prompt.box_spaces[0], strict=True)] * 2
    assert len(one["boxes"]) == len(boxes)
    for before, after in zip(boxes, one["boxes"], strict=True):
        off = [abs(a - b) / p for a, b, p in zip(before, after["pixels"], pixel, strict=True)]
        assert max(off) <= 0.5 + 1e-9, (before, after)


def test_boxes_of_two_images_are_written_and_read_in_the_space_of_their_own_image(backbone) -> None:
    sizes = [(640, 480), (113, 207)]
    regions = (Region((10.0, 20.0, 320.0, 400.0), 0, "dog"), Region((5.0, 6.0, 50.0, 200.0), 1))
    sample = replace(several_images("Which?", sizes), regions=regions)
    prompt = backbone.encode(sample, noise(sizes))
    written = backbone.target(target_text(sample, prompt.box_spaces), prompt)
    (one,) = predicted(prompt, backbone.completion(written.token_ids, "eos", prompt))
    assert [(box["image"], box["label"], box["valid"]) for box in one["boxes"]] == [(1, "dog", True), (2, None, True)]
    for region, box in zip(regions, one["boxes"], strict=True):
        off = [abs(a - b) for a, b in zip(region.box, box["pixels"], strict=True)]
        assert max(off) <= 1.0, (region, box)
    assert one["more_images"] == [{"image": "1.png", "image_size": [113, 207]}]
    assert one["more_box_spaces"] == [list(prompt.box_spaces[1])]
    assert matched_iou(one) > 0.9


def test_tokens_of_images_and_turns_are_never_sampled(backbone) -> None:
    words, banned = len(backbone.tokenizer), set(backbone.banned_token_ids)
    names = set(backbone.tokenizer.convert_ids_to_tokens([index for index in banned if index < words]))
    assert {"<|im_start|>", backbone.family.image_token, *filter(None, backbone.family.around_image)} <= names
    assert not names & {"<|im_end|>", "<think>"}
    assert set(range(words, backbone.config.get_text_config().vocab_size)) <= banned
