"""Vision-language model families (one module each), and the backbone that loads their checkpoints."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.model.backbones.pretrained import PretrainedBackbone
    from grit_lightning.model.backbones.protocol import Backbone

__all__ = ["Backbone", "PretrainedBackbone"]

__getattr__ = lazy_face(
    __name__,
    {
        "pretrained": ["PretrainedBackbone"],
        "protocol": ["Backbone"],
    },
)
