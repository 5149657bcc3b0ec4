"""The model that turns token ids into log-probabilities: policy, reference, packing, attention, LM head, adapters."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.model.adapters import LoRA
    from grit_lightning.model.backbones.pretrained import PretrainedBackbone
    from grit_lightning.model.policy import Policy
    from grit_lightning.model.reference import PolicyAtStart, Reference

__all__ = ["LoRA", "Policy", "PolicyAtStart", "PretrainedBackbone", "Reference"]

__getattr__ = lazy_face(
    __name__,
    {
        "adapters": ["LoRA"],
        "backbones.pretrained": ["PretrainedBackbone"],
        "policy": ["Policy"],
        "reference": ["PolicyAtStart", "Reference"],
    },
)
