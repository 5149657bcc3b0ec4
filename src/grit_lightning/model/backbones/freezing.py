"""Freezing of parameters, selected by part of the model or by a prefix of their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel

from grit_lightning.errors import ConfigError


def freeze(
    model: PreTrainedModel, frozen: Sequence[str], parts: Mapping[str, tuple[str, ...]], checkpoint: str
) -> None:
    """Exclude parameters from training, in place.

    Args:
        model: model whose parameters are frozen, on any device.
        frozen: parts to freeze, such as ``vision``, or parameter name prefixes.
        parts: parameter name prefixes of each part.
        checkpoint: name of the checkpoint, for error messages.

    Raises:
        ConfigError: an entry of ``frozen`` matches no parameter.
    """
    for part in frozen:
        beginnings = parts.get(part, (part,))
        parameters = [value for name, value in model.named_parameters() if name.startswith(beginnings)]
        if not parameters:
            raise ConfigError(
                f"model.freeze: {part} is none of {', '.join(parts)}, and no parameter name of {checkpoint} begins "
                "with it"
            )
        for value in parameters:
            value.requires_grad_(False)
