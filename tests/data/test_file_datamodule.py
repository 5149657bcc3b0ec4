"""Tests of the data module: it checks all data before the first step, encodes each sample once, and resumes."""

from __future__ import annotations

import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from grit_lightning.data import file_datamodule
from grit_lightning.data.file_datamodule import BoundedCache, GroundedQADataModule
from grit_lightning.data.images import load_images
from grit_lightning.data.shapes.scenes import image_split
from grit_lightning.data.stream import Batch
from grit_lightning.errors import ConfigError, DataError
from support.photographs import MISSING, VSR10

ROOT = Path(__file__).parents[2]
SHAPES = ROOT / "src/grit_lightning/assets/shapes20"


def make(root: Path | None, **changes) -> GroundedQADataModule:
    config = {
        "root": None if root is None else str(root),
        "train": [{"file": "cats.jsonl", "images": "images"}],
        "val": None,
        "prompts_per_step": 2,
        "max_prompt_tokens": 100,
        "cached_samples": 10,
        "seed": 0,
    }
    return GroundedQADataModule(**{**config, **changes})


def test_setup_encodes_each_sample_once(write, record, encoder):
    data = make(write(record(), record(), record()).parent)
    data.attach(encoder)
    data.setup("fit")
    steps = list(itertools.islice(data.train_dataloader(), 6))
    assert sorted(encoder.calls) == ["cats/1", "cats/2", "cats/3"]
    shown = [prompt.sample.id for batch in steps for _, prompt in batch.prompts]
    assert sorted(shown) == sorted(encoder.calls * 4)
    assert [[slot for slot, _ in batch.prompts] for batch in steps] == [[0, 1]] * 6


def test_the_cache_size_does_not_change_the_batches(write, record, encoder):
    root = write(*(record(question=f"{number}?") for number in range(5))).parent
    orders, encoded = [], {}
    for cached in (0, 2, 5):
        before = len(encoder.calls)
        data = make(root, cached_samples=cached, workers=0, prefetch_steps=0)
        data.attach(encoder)
        data.setup("fit")
        steps = itertools.islice(data.train_dataloader(), 10)
        orders.append([(slot, prompt.text) for batch in steps for slot, prompt in batch.prompts])
        encoded[cached] = len(encoder.calls) - before
    assert len(orders[0]) == 20
    assert orders[0] == orders[1] == orders[2]
    assert (encoded[0], encoded[5]) == (5 + 20, 5), "each sample once in setup, then each prompt unless it is cached"
    assert 5 < encoded[2] < 25


def test_setup_stops_at_the_first_problem_and_counts_the_others(write, record, encoder):
    file = write(record(), record(answer=None), record(width=39), record(image="b.png"))
    data = make(file.parent)
    data.attach(encoder)
    with pytest.raises(DataError) as caught:
        data.setup("fit")
    assert str(caught.value).startswith(f"{file}:2: field 'answer' is null")
    assert str(caught.value).endswith("(and 2 more problems: task=validate lists them all)")
    assert [problem.source for check in data.check() for problem in check.problems] == [
        f"{file}:{line}" for line in (2, 3, 4)
    ]


def test_a_prompt_above_the_token_limit_is_refused(write, record, encoder):
    file = write(record(), record(question="x" * 97))
    data = make(file.parent)
    data.attach(encoder)
    with pytest.raises(DataError) as caught:
        data.setup("fit")
    assert str(caught.value) == (
        f"{file}:2: the prompt of sample cats/2 has 101 tokens; expected at most data.max_prompt_tokens = 100"
    )


def test_without_an_encoder_only_files_and_images_are_checked(write, record):
    file = write(record(question="x" * 500), record(image="b.png"))
    assert [problem.source for check in make(file.parent).check() for problem in check.problems] == [f"{file}:2"]


def test_a_missing_root_says_how_to_fetch_the_data(tmp_path):
    data = make(tmp_path / "nowhere", train=[{"file": "vsr_cot_train_10.jsonl", "images": "images"}])
    with pytest.raises(DataError) as caught:
        data.setup("fit")
    assert str(caught.value) == (
        f"{tmp_path / 'nowhere'}: the folder of data.root does not exist; "
        "task=fetch downloads the files of data=grit20 and data=grit_eval"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts_per_step": 0}, "data.prompts_per_step is 0; expected at least 1"),
        ({"max_prompt_tokens": 0}, "data.max_prompt_tokens is 0; expected at least 1"),
        ({"cached_samples": -1}, "data.cached_samples is -1; expected at least 0"),
        ({"workers": -1}, "data.workers is -1; expected at least 0"),
        ({"prefetch_steps": -1}, "data.prefetch_steps is -1; expected at least 0"),
        ({"check": "some"}, "data.check is some; expected one of auto, headers, all"),
        ({"train": []}, "data.train lists no files; expected a JSONL file, a folder or a list of {file, images}"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, **changes)
    assert str(caught.value) == message


def test_fewer_prompts_than_ranks_stops_setup(write, record, encoder):
    data = make(write(record()).parent)
    data.attach(encoder)
    data.trainer = SimpleNamespace(global_rank=0, world_size=3)
    with pytest.raises(ConfigError, match="expected at least one prompt for each of the 3 processes"):
        data.setup("fit")


def test_validation_samples_are_those_of_the_files_then_the_held_out_ones(write, record, encoder, tmp_path):
    write(record(), name="dogs.jsonl")
    root = write(record()).parent
    drawn = {"shapes": 3, "seed": 5, "folder": str(tmp_path / "heldout")}
    data = make(root, val=[{"file": "dogs.jsonl", "images": "images"}, drawn])
    data.attach(encoder)
    data.setup("fit")
    assert [sample.id for sample in data.train_samples()] == ["cats/1"]
    assert [sample.id for sample in data.val_samples()] == [
        "dogs/1",
        *(f"shapes_tallyqa_heldout_3/{line}" for line in (1, 2, 3)),
        *(f"shapes_vsr_heldout_3/{line}" for line in (1, 2, 3)),
    ]
    generated = data.val_samples()[1:]
    assert {image_split(load_images(sample)[0]) for sample in generated} == {"heldout"}
    assert {sample.image.parent for sample in generated} == {tmp_path / "heldout" / "images"}


def test_held_out_samples_need_no_folder(write, record):
    data = make(write(record()).parent, val=[{"shapes": 1, "seed": 5}])
    assert [load_images(sample)[0].size == sample.size for sample in data.val_samples()] == [True, True]
    assert make(data.root).val_samples() == []


def test_a_model_trained_on_other_data_is_not_asked_about_shapes(write, record, tmp_path, caplog):
    own = write(record())
    caplog.set_level("INFO")
    data = make(tmp_path / "elsewhere", train=str(own), val=[{"shapes": 1}])
    assert data.val_samples() == []
    assert "the held-out questions of the shapes world are left out: data.train is yours" in caplog.text


def test_own_data_need_no_root(write, record):
    file = write(record(), record())
    data = make(None, train=str(file), val=str(file))
    assert len(data.train_samples()) == len(data.val_samples()) == 2


def test_a_missing_file_of_ones_own_is_named_without_advice_to_fetch_it(write, record, tmp_path):
    data = make(write(record()).parent, train=str(tmp_path / "mine.jsonl"))
    with pytest.raises(DataError) as caught:
        data.setup("fit")
    assert str(caught.value) == (
        f"{tmp_path / 'mine.jsonl'}: none of the files of data.train exists with its image folder"
    )


def test_the_data_module_can_be_pickled(write, record, backbone):
    data = make(write(record()).parent, max_prompt_tokens=750)
    data.attach(backbone.encode)
    data.setup("fit")
    assert [s.id for s in pickle.loads(pickle.dumps(data)).train_samples()] == ["cats/1"]


class Recorder(L.LightningModule):
    """Takes one optimizer step per batch and records the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, list[tuple[int, str]]]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.seen.append((batch.step, [(slot, prompt.sample.id) for slot, prompt in batch.prompts]))
        self.manual_backward(self.weight * 1.0)
        self.optimizers().step()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(root: Path, encoder, steps: int, folder: Path, resume: Path | None = None) -> Recorder:
    data = make(root)
    data.attach(encoder)
    module = Recorder()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, data, ckpt_path=resume)
    if not resume:
        trainer.save_checkpoint(folder / "at.ckpt")
    return module


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # Lightning with torch 2.13
def test_a_resumed_fit_sees_the_batches_of_an_uninterrupted_one(write, record, encoder, tmp_path):
    root = write(*(record(question=f"{number}?") for number in range(5))).parent
    unbroken = fit(root, encoder, 7, tmp_path).seen
    before = fit(root, encoder, 3, tmp_path).seen
    after = fit(root, encoder, 7, tmp_path, resume=tmp_path / "at.ckpt").seen
    assert [step for step, _ in unbroken] == list(range(7))
    assert before + after == unbroken


@pytest.mark.parametrize("name", ["shapes20", "grit"])
def test_the_shipped_configs_build_the_data_module(name, encoder):
    had_resolver = OmegaConf.has_resolver("asset")
    if not had_resolver:
        OmegaConf.register_new_resolver("asset", lambda asset: str(SHAPES.parent / asset))
    try:
        config = OmegaConf.create({"seed": 3, "data": OmegaConf.load(ROOT / "conf/data" / f"{name}.yaml")})
        if name == "grit":
            config.data.root = str(VSR10)
        data = instantiate(config.data)
    finally:
        if not had_resolver:
            OmegaConf.clear_resolver("asset")
    assert (data.seed, data.prompts_per_step, data.max_prompt_tokens) == (3, 4, 750)
    if name == "grit" and not VSR10.is_dir():
        pytest.skip(MISSING)
    data.attach(encoder)
    data.setup("fit")
    assert len(data.train_samples()) == {"shapes20": 20, "grit": 10}[name]
    datasets = {"shapes20": {"vsr", "tallyqa"}, "grit": {"vsr"}}[name]
    assert {sample.dataset for sample in data.train_samples()} == datasets


def test_the_prompt_cache_drops_the_least_recently_used():
    made: list[str] = []
    cache: BoundedCache[str, str] = BoundedCache(2)

    def use(key: str) -> str:
        return cache.get(key, lambda: made.append(key) or key.upper())

    assert [use(key) for key in "abacab"] == list("ABACAB")
    assert made == ["a", "b", "c", "b"]  # c pushed out b, since a was used after b
    assert len(cache) == 2


def test_capacity_zero_keeps_nothing():
    cache: BoundedCache[int, int] = BoundedCache(0)
    assert [cache.get(1, lambda: 10), cache.get(1, lambda: 11), len(cache)] == [10, 11, 0]


def test_the_prompt_cache_can_be_pickled():
    cache: BoundedCache[str, int] = BoundedCache(1)
    cache.get("a", lambda: 1)
    assert pickle.loads(pickle.dumps(cache)).get("a", lambda: 2) == 1


def torn(root: Path, name: str = "torn.png") -> Path:
    """Write an image of 40 × 30 px whose header is good and whose pixels are not."""
    whole = Image.effect_noise((40, 30), 99).convert("RGB")
    whole.save(root / "images" / name)
    (root / "images" / name).write_bytes((root / "images" / name).read_bytes()[:-1500])
    return root / "images" / name


def batches(data: GroundedQADataModule, encoder) -> list:
    data.attach(encoder)
    data.setup("fit")
    return data.train_dataloader()


def test_headers_are_checked_at_the_start_and_pixels_when_they_are_needed(write, record, encoder):
    file = write(record(), record(image="torn.png"), record())
    bad = torn(file.parent)
    served = iter(batches(make(file.parent, check="headers", prompts_per_step=3), encoder))
    with pytest.raises(DataError) as caught:
        next(served)
    assert str(caught.value).startswith(f"{file}:2: image {bad} cannot be decoded (")
    assert "torn" not in encoder.calls


@pytest.mark.parametrize("check", ["headers", "all"])
def test_a_missing_image_and_a_wrong_size_are_found_at_the_start(write, record, encoder, check):
    file = write(record(), record(image="gone.png"), record(width=41), record(answer=None))
    data = make(file.parent, check=check)
    data.attach(encoder)
    with pytest.raises(DataError) as caught:
        data.setup("fit")
    assert str(caught.value).startswith(f"{file}:4: field 'answer' is null")
    assert "(and 2 more problems:" in str(caught.value)
    assert encoder.calls == []


def test_check_all_decodes_every_image_before_the_first_step(write, record, encoder):
    file = write(record(), record(image="torn.png"))
    torn(file.parent)
    data = make(file.parent, check="all")
    data.attach(encoder)
    with pytest.raises(DataError, match=r"cats\.jsonl:2: image \S+torn\.png cannot be decoded"):
        data.setup("fit")


def test_auto_checks_a_small_set_fully_and_a_large_one_by_its_headers(write, record, encoder, monkeypatch):
    file = write(*(record() for _ in range(4)))
    batches(make(file.parent), encoder)
    assert len(encoder.calls) == 4
    monkeypatch.setattr(file_datamodule, "FULLY_CHECKED", 3)
    served = batches(make(file.parent, workers=0), encoder)
    assert len(encoder.calls) == 4
    next(iter(served))
    assert len(encoder.calls) > 4


def test_prefetching_changes_no_batch(write, record, encoder):
    root = write(*(record(question=f"{number}?") for number in range(7))).parent
    shown = []
    for options in ({"workers": 0}, {"workers": 1}, {"workers": 3, "prefetch_steps": 4}, {"prefetch_steps": 0}):
        served = batches(make(root, cached_samples=1, check="headers", **options), encoder)
        steps = list(itertools.islice(served, 9))
        assert all(batch.waited >= 0 for batch in steps)
        shown.append([(batch.step, slot, prompt.text) for batch in steps for slot, prompt in batch.prompts])
    assert shown[1:] == shown[:1] * 3


def test_the_cache_serves_several_threads():
    cache: file_datamodule.BoundedCache[int, int] = file_datamodule.BoundedCache(3)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda key: cache.get(key % 5, lambda: key % 5), range(5000)))
    assert found == [key % 5 for key in range(5000)]
    assert len(cache) == 3
