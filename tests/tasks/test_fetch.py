"""Tests of ``task=fetch`` from a local server: with failures, killed and continued, and followed by training."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from grit_lightning.errors import ConfigError
from grit_lightning.tasks.fetch import fetch_data
from support import hostile_server as hostile
from support.hostile_server import Forever, HostileServer
from support.processes import start

VSR = [f"00000000000{number}.jpg" for number in range(4)]
TALLYQA = ["VG_100K/7.jpg", "VG_100K_2/8.jpg", "VG_100K_2/9.jpg"]


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (112, 84), random.Random(seed).randbytes(112 * 84 * 3)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def jsonl(dataset: str, images: list[str]) -> bytes:
    record = {"question": "How many?", "answer": 2, "width": 112, "height": 84, "bboxs": [], "dataset": dataset}
    return "".join(json.dumps(record | {"image": image}) + "\n" for image in images).encode()


@pytest.fixture
def hub(server: HostileServer) -> HostileServer:
    """A server with the files of GRIT's training samples at the paths of the public servers."""
    server.files["/hub/vsr_cot_train_10.jsonl"] = jsonl("vsr", VSR)
    server.files["/hub/tallyqa_train_10.jsonl"] = jsonl("tallyqa", TALLYQA)
    folders = ["train2017", "val2017", "train2017", "val2017"]
    for number, (folder, name) in enumerate(zip(folders, VSR, strict=True)):
        server.files[f"/coco/{folder}/{name}"] = jpeg(number)
    for number, name in enumerate(TALLYQA):
        server.files[f"/vg/{name}"] = jpeg(100 + number)
    return server


@pytest.fixture
def options(hub: HostileServer) -> list[str]:
    bases = {"hub": "hub", "coco": "coco", "visual_genome": "vg"}
    return [
        "task=fetch",
        *(f"task.bases.{name}={hub.url}/{path}" for name, path in bases.items()),
        "task.backoff=0.01",
        "task.attempts=2",
        "task.timeout=5",
    ]


@pytest.fixture
def run(compose_config, options: list[str], tmp_path: Path) -> Callable[..., object]:
    """Return a function that runs the task in this process."""

    def run_(*overrides: str, root: str = "data") -> object:
        cfg = compose_config(*options, f"data.root={tmp_path / root}", *overrides)
        return fetch_data(cfg, **{key: value for key, value in cfg.task.items() if key[0] != "_"})

    return run_


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


COMPLETE = {
    "vsr_cot_train_10.jsonl",
    "tallyqa_train_10.jsonl",
    *(f"images/{name}" for name in [*VSR, *TALLYQA]),
}


@pytest.mark.slow
def test_grit20_is_fetched_to_the_cache_and_trained_on(cli, hub, options, tmp_path) -> None:
    cache = {"GRIT_LIGHTNING_CACHE": str(tmp_path / "cache")}
    absent = cli("data=grit20", cwd=tmp_path, **cache)
    assert absent.returncode == 1
    assert re.fullmatch(
        r"error: \S+/cache/GRIT_data: .+; task=fetch downloads the files of data=grit20 and .+\n", absent.stderr
    )

    done = cli(*options, "data=grit20", cwd=tmp_path, **cache)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if ".jsonl" in line}
    assert rows == {
        "vsr_cot_train_10.jsonl": ["fetched", "4", "4", "0", "4", "0"],
        "tallyqa_train_10.jsonl": ["fetched", "3", "3", "0", "3", "0"],
    }
    assert done.stdout.endswith(f"\n0 already there, 9 fetched, 0 missing, in {tmp_path}/cache/GRIT_data\n")
    assert files_in(tmp_path / "cache" / "GRIT_data") == COMPLETE
    assert os.listdir(tmp_path) == ["cache"]

    training = ("data=grit20", "trainer.max_steps=1", "rollout.num_generations=2", "rollout.max_new_tokens=8")
    trained = cli(
        *training,
        "threads=1",
        "trainer.accelerator=cpu",
        "model.random_weights_seed=0",
        "out=run",
        cwd=tmp_path,
        **cache,
    )
    assert trained.returncode == 0, trained.stderr
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").data.root == f"{tmp_path}/cache/GRIT_data"
    lines = (tmp_path / "run" / "rollouts" / "step_000001.jsonl").read_text().splitlines()
    shown = {json.loads(line)["image"] for line in lines}
    assert len(shown) == 4
    assert shown <= {f"{tmp_path}/cache/GRIT_data/images/{name}" for name in [*VSR, *TALLYQA]}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_fetch_finishes_when_run_again(cli, hub, options, tmp_path, how) -> None:
    slow, part = f"/coco/train2017/{VSR[0]}", 2000
    hub.moods[slow] = [hostile.stalled(part)]
    command = [*options, "data=grit20", "data.root=data", "task.timeout=100"]
    process = start(*command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    others = {f"images/{name}" for name in [*VSR[1:], *TALLYQA]}
    remnant = tmp_path / "data" / "images" / f".{VSR[0]}.part"
    deadline = time.monotonic() + 100
    while not (others <= files_in(tmp_path / "data") and remnant.is_file() and remnant.stat().st_size == part):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    error = process.communicate(timeout=60)[1]
    if how is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + how
        assert error == "stopped: run the same command to continue\n"
    assert not (tmp_path / "data" / "images" / VSR[0]).exists()

    hub.requests.clear()
    done = cli(*options, "data=grit20", "data.root=data", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [(request.path, request.range) for request in hub.requests] == [(slow, f"bytes={part}-")]
    assert files_in(tmp_path / "data") == COMPLETE
    assert (tmp_path / "data" / "images" / VSR[0]).read_bytes() == jpeg(0)


def test_missing_files_are_named_and_fetched_ones_kept(cli, hub, options, tmp_path) -> None:
    del hub.files[f"/vg/{TALLYQA[0]}"]
    hub.moods[f"/coco/train2017/{VSR[0]}"] = [Forever(hostile.status(503))]
    hub.moods[f"/coco/train2017/{VSR[2]}"] = [hostile.reset(1000)]
    hub.moods[f"/vg/{TALLYQA[1]}"] = [hostile.redirect("/elsewhere")]
    hub.files["/elsewhere"] = jpeg(101)
    done = cli(*options, "data=grit20", "data.root=data", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == ""
    problems = [line for line in done.stdout.splitlines() if re.match(r"data/\S+:\d+: ", line)]
    assert problems == [
        f"data/vsr_cot_train_10.jsonl:1: data/images/{VSR[0]}: "
        f"{hub.url}/coco/train2017/{VSR[0]}: HTTP 503 Service Unavailable (2 attempts); "
        f"{hub.url}/coco/val2017/{VSR[0]}: HTTP 404 Not Found",
        f"data/tallyqa_train_10.jsonl:1: data/images/{TALLYQA[0]}: "
        f"{hub.url}/vg/VG_100K/7.jpg: HTTP 404 Not Found; {hub.url}/vg/VG_100K_2/7.jpg: HTTP 404 Not Found",
    ]
    assert done.stdout.endswith("\n0 already there, 7 fetched, 2 missing, in data\n")
    assert files_in(tmp_path / "data") == COMPLETE - {f"images/{VSR[0]}", f"images/{TALLYQA[0]}"}


def test_the_evaluation_sets_are_fetched_as_far_as_addresses_are_known(
    run, hub, tmp_path, capsys, compose_config, caplog
) -> None:
    for name in ("vsr", "tallyqa"):
        hub.files[f"/hub/{name}_val.jsonl"] = jsonl(name, VSR[:2] if name == "vsr" else TALLYQA[:1])
    hub.files["/hub/gqa_val.jsonl"] = jsonl("gqa", ["images/8.jpg"])
    for name in ("mme", "mathvista_mini"):
        hub.files[f"/hub/{name}_val.jsonl"] = jsonl(name, ["images/8.jpg", "images/9.jpg"])
    hub.moods["/hub/ovd_position_val.jsonl"] = [Forever(hostile.status(404))]
    with pytest.raises(SystemExit) as ended:
        run("data=grit_eval")
    assert ended.value.code == 1
    root = tmp_path / "data"
    hint = "or give their address as '++task.images.{0}=[\"http://…/{{name}}\"]'"
    assert capsys.readouterr().out.splitlines()[-4:] == [
        f"2 images of mme: no download address is known; place them in {root}/mme {hint.format('mme')}",
        "2 images of mathvista_mini: no download address is known; "
        f"place them in {root}/mathvista_mini {hint.format('mathvista_mini')}",
        f"{root}/ovd_position_val.jsonl: {hub.url}/hub/ovd_position_val.jsonl: HTTP 404 Not Found",
        f"0 already there, 15 fetched, 5 missing, in {root}",
    ]
    assert files_in(root) == {
        *COMPLETE,
        *(f"{name}_val.jsonl" for name in ("vsr", "tallyqa", "gqa", "mme", "mathvista_mini")),
        "images/images/8.jpg",
    }
    assert hub.paths().count("/vg/VG_100K/8.jpg") == 1  # of GQA, whose names do not tell the folder
    assert hub.paths().count("/vg/VG_100K_2/8.jpg") == 2  # of TallyQA, and of GQA after that

    # What is there can be evaluated on: a set without its images is left out.
    data = instantiate(compose_config("data=grit_eval", f"data.root={root}").data)
    assert [sample.dataset for sample in data.val_samples()] == ["vsr", "vsr", "tallyqa", "gqa"]
    assert caplog.messages[-1] == (
        f"data.val: skipped because missing: {root}/mme, {root}/mathvista_mini, {root}/ovd_position_val.jsonl"
    )

    # An address of one's own.
    run_again = [f"++task.images.{name}=['{hub.url}/vg/VG_100K_2/{{name}}']" for name in ("mme", "mathvista_mini")]
    with pytest.raises(SystemExit):
        run("data=grit_eval", *run_again)
    assert capsys.readouterr().out.endswith(f"\n15 already there, 4 fetched, 1 missing, in {root}\n")
    assert (root / "mme" / "images" / "9.jpg").read_bytes() == jpeg(102)


def test_one_evaluation_set_can_be_fetched_alone(run, hub, tmp_path) -> None:
    hub.files["/hub/vsr_val.jsonl"] = jsonl("vsr", VSR[:2])
    reports = run("data=grit_eval", "data.val=[{file: vsr_val.jsonl, images: images}]")
    assert [report.entry.file.name for report in reports][-1] == "vsr_val.jsonl"
    assert files_in(tmp_path / "data") == {*COMPLETE, "vsr_val.jsonl"}


def test_complete_data_causes_no_request(compose_config, options, hub) -> None:
    cfg = compose_config(*options, "data=shapes20")
    reports = fetch_data(cfg, **{key: value for key, value in cfg.task.items() if key[0] != "_"})
    assert [set(report.row().values()) for report in reports] == [
        {f"shapes_{name}_train_10.jsonl", "already there", "10", "0"} for name in ("tallyqa", "vsr")
    ]
    assert hub.requests == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=grit20", "task.parallel=0"], r"^task\.parallel is 0, expected at least 1$"),
        (["data=grit20", "task.attempts=1.5"], r"^task\.attempts is 1\.5, expected int$"),
        (["data=grit20", "task.bases.coco=mirror"], r"^task\.images\.vsr\[0\] is '{coco}.+', which gives mirror/train"),
        (
            ["data=grit20", "task.files='{huh}/{name}'"],
            r"^task\.files is '{huh}/{name}', expected an address with no placeholder ",
        ),
        (["data=grit20", "+task.colour=red"], r"^task\.colour is unknown: grit_lightning\.tasks\.fetch_data takes "),
        (["data=shapes_lessons", "task.parallel=2"], r"^this data has no files to fetch: choose data=grit20 or "),
    ],
)
def test_invalid_options_are_refused_before_the_first_request(
    compose_config, options, hub, tmp_path, overrides, message
):
    where = [f"data.root={tmp_path}/data"] if "data=grit20" in overrides else []
    cfg = compose_config(*options, *where, *overrides)
    with pytest.raises(ConfigError, match=message):
        fetch_data(cfg, **{key: value for key, value in cfg.task.items() if key[0] != "_" and key != "colour"})
    assert hub.requests == []
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_created_is_refused(run, hub, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"^data\.root=\S+/file/data cannot be made: Not a directory "):
        run("data=grit20", root="file/data")
    assert hub.requests == []


def test_the_token_goes_to_the_hub_only_and_is_not_printed(cli, hub, options, tmp_path) -> None:
    signed = f"http://localhost:{hub.port}/signed?X-Amz-Signature=5ec3e7"
    hub.files["/signed?X-Amz-Signature=5ec3e7"] = hub.files["/hub/vsr_cot_train_10.jsonl"]
    hub.moods["/hub/vsr_cot_train_10.jsonl"] = [hostile.redirect(signed)]
    env = {"HF_TOKEN": "secret", "NO_PROXY": "127.0.0.1,localhost"}
    done = cli(*options, "data=grit20", "data.root=data", "hydra.verbose=true", cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    sent = {request.path: request.authorization for request in hub.requests}
    assert {path for path, token in sent.items() if token == "Bearer secret"} == {
        "/hub/vsr_cot_train_10.jsonl",
        "/hub/tallyqa_train_10.jsonl",
    }
    assert {token for path, token in sent.items() if not path.startswith("/hub/")} == {None}
    assert not re.search("secret|Signature", done.stdout + done.stderr)
    written = [file for file in tmp_path.rglob("*") if file.is_file() and b"secret" in file.read_bytes()]
    assert written == []


def test_a_token_that_cannot_be_sent_is_refused_without_quoting_it(run, hub, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "sécret")
    with pytest.raises(ConfigError, match=r"^HF_TOKEN holds a character that cannot be sent, expected letters, digits"):
        run("data=grit20")
    assert hub.requests == []


def test_the_shipped_addresses_are_those_of_the_data_authors(compose_config) -> None:
    """No test sends a request to these addresses, which are named by the authors of the data."""
    task = compose_config("task=fetch", "data=grit20").task
    assert task.bases == {
        "hub": "https://huggingface.co/datasets/yfan1997/GRIT_data/resolve/main",
        "coco": "http://images.cocodataset.org",
        "visual_genome": "https://cs.stanford.edu/people/rak248",
    }
    val = compose_config("data=grit_eval").data.val
    assert {entry.file.removesuffix("_val.jsonl") for entry in val} == set(task.images)
