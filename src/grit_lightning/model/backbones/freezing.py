"""Parameters that are not trained, named by part of the model or by the beginning of their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel

from grit_lightning.errors import ConfigError


def freeze(
    model: PreTrainedModel, frozen: Sequence[str], parts: Mapping[str, tuple[str, ...]], checkpoint: str
) -> None:
    """Exclude parameters from training, in place.

    Args:
        model: the model, on any device.
        frozen: parts such as ``vision``, or beginnings of parameter names.
        parts: beginnings of the parameter names of each part.
        checkpoint: the checkpoint's name, for messages.

    Raises:
        ConfigError: an entry that names no parameter.
    """
    for part in frozen:
        beginnings = parts.get(part, (part,))
        parameters = [value for name, value in model.named_parameters() if name.startswith(beginnings)]
        if not parameters:
            raise ConfigError(
                f"model.freeze: {part} is none of {', '.join(parts)}, and no parameter of {checkpoint} has a name that "
                "begins with it"
            )
        for value in parameters:
            value.requires_grad_(False)
