"""The ten VSR photographs of GRIT's training data, which some tests use where they are available."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
_RELATIVE = "../shared/data/vsr10"

VSR10 = (REPOSITORY / _RELATIVE).resolve()
"""Folder of ``vsr_cot_train_10.jsonl`` and its ``images``; it lies outside the repository and may be missing."""

MISSING = f"needs GRIT's ten VSR photographs in {_RELATIVE} (relative to the repository), which are not part of it"

needs_photographs = pytest.mark.skipif(not VSR10.is_dir(), reason=MISSING)
