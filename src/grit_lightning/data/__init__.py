"""Data: the GRIT JSONL format, images, checks of data files, downloads and the endless stream of prompts."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.data.file_datamodule import GroundedQADataModule
    from grit_lightning.data.prompt_datamodule import PromptDataModule
    from grit_lightning.data.records import read_samples

__all__ = ["GroundedQADataModule", "PromptDataModule", "read_samples"]

__getattr__ = lazy_face(
    __name__,
    {
        "file_datamodule": ["GroundedQADataModule"],
        "prompt_datamodule": ["PromptDataModule"],
        "records": ["read_samples"],
    },
)
