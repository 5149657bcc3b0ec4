"""The layouts that can be imported, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from grit_lightning.data.importing import easyr1, ms_swift, treevgr, verl, vlm_r1
from grit_lightning.data.importing.sample import BoxForm, ForeignSample

Reader = Callable[[Mapping[str, Any], BoxForm | None], ForeignSample]
"""Turns a row into a sample, or raises LeftOutError. The second argument says how boxes are written, if a user did."""

FORMATS: Mapping[str, Reader] = {
    "ms_swift": ms_swift.read,
    "vlm_r1": vlm_r1.read,
    "easyr1": easyr1.read,
    "treevgr": treevgr.read,
    "verl": verl.read,
}
