"""Tests of the import as a whole: it goes on after a kill with the same result, and says what it cannot read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from grit_lightning.data.importing import writer
from grit_lightning.data.importing.rows import rows
from grit_lightning.data.importing.writer import Import, Settings, State
from grit_lightning.errors import ConfigError, DataError

ROWS = 25


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files of 25 rows about one image each; every seventh row cannot be imported."""
    found = []
    for name in ("one", "two"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / f"{name}.png")
        found.append(tmp_path / f"{name}.jsonl")
        texts = [
            json.dumps({"images": [f"{name}.png"], "problem": f"{name} {n}?", "answer": "" if n % 7 == 0 else str(n)})
            for n in range(ROWS)
        ]
        found[-1].write_text("\n".join(texts))
    return found


def job(out: Path, files: list[Path], **changes: object) -> Import:
    out.mkdir(exist_ok=True)
    options = {"format": "easyr1", "images": str(files[0].parent), "boxes": None, "split": "train"} | changes
    return Import(out, Settings(files=tuple(map(str, files)), **options))  # type: ignore[arg-type]


def content(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 10, 11, 26, 37, 49])
def test_an_import_that_was_killed_goes_on_and_ends_with_the_same_bytes(tmp_path, files, monkeypatch, at) -> None:
    monkeypatch.setattr(writer, "_SAVED_EVERY", 5)
    whole = job(tmp_path / "whole", files).run(lambda state: None)
    assert (whole.imported, sum(whole.left_out.values())) == (42, 8)
    seen: list[tuple[int, int]] = []

    def kill(state: State) -> None:
        seen.append((state.file, state.row))
        if len(seen) == at:
            raise Killed

    with pytest.raises(Killed):
        job(tmp_path / "killed", files).run(kill)
    part = tmp_path / "killed" / ".train.jsonl.part"
    with part.open("ab") as torn:  # what was not flushed together with the state
        torn.write(b'{"question": "half a li')
    assert not (tmp_path / "killed" / "train.jsonl").exists()
    again = job(tmp_path / "killed", files).run(lambda state: seen.append((state.file, state.row)))
    assert len(seen) <= 2 * ROWS + 5, "rows that were done are not read twice, except the last few"
    assert (again.imported, again.left_out) == (whole.imported, whole.left_out)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_an_unfinished_import_goes_on_with_its_own_settings_only(tmp_path, files) -> None:
    def kill(state: State) -> None:
        raise Killed

    with pytest.raises(Killed):
        job(tmp_path / "out", files).run(kill)
    (tmp_path / "out" / ".import_train.json").write_text(
        json.dumps({"settings": {"files": ["a.jsonl"]}, "state": {"file": 0, "row": 1}})
    )
    with pytest.raises(ConfigError, match=r"holds an unfinished import with other settings, of a\.jsonl: give these"):
        job(tmp_path / "out", files).run(lambda state: None)
    (tmp_path / "out" / ".import_train.json").write_text("{")
    with pytest.raises(DataError, match="not the state of an import"):
        job(tmp_path / "out", files).run(lambda state: None)


def test_reasons_are_counted_without_the_values_of_the_rows(tmp_path, files) -> None:
    state = job(tmp_path / "out", files).run(lambda state: None)
    assert state.left_out == {"answer: expected a text or a number": 8}


def test_a_torn_parquet_file_is_named_with_the_last_row_that_was_read(tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"x": list(range(1000))}), file, row_group_size=100)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"t\.parquet: is no whole parquet file, after row 0 \("):
        list(rows(file))
    middle = len(whole) // 3
    file.write_bytes(whole[:middle] + bytes(200) + whole[middle + 200 :])
    with pytest.raises(DataError, match=r"t\.parquet: is no whole parquet file, after row [0-9]+ \("):
        list(rows(file))


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match=r"parquet files need pyarrow: pip install 'grit-lightning\[parquet\]'"):
        list(rows(tmp_path / "t.parquet"))


def test_a_missing_file_and_one_document_are_named(tmp_path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl: there is no such file"):
        list(rows(tmp_path / "gone.jsonl"))
    (tmp_path / "a.json").write_text('[{"problem": "Q"},\n {"problem": "P"}]')
    with pytest.raises(DataError, match=r"a\.json: the file is one JSON array; expected JSON Lines"):
        list(rows(tmp_path / "a.json"))
