"""The one line that a user sees of an error: messages of this package, of Hydra and of OmegaConf in the same words."""

from __future__ import annotations

import re

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from grit_lightning.errors import UserError
from grit_lightning.system.printable import printable


def one_line(error: BaseException) -> str:
    """Return an error's message on one printable line: that of the ``UserError`` that caused it, if there is one."""
    return printable(_message(error))


def _message(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return " ".join(str(cause).split())
        cause = cause.__cause__
    first = str(error).split("\n", 1)[0]
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no default: give {error.full_key}=VALUE"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {first}"
    return _hydra_line(error, first) if isinstance(error, HydraException) else " ".join(str(error).split())


def _hydra_line(error: HydraException, first: str) -> str:
    """Reword Hydra's errors about the command line or about building an object."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option} is unknown: the options of {group} are {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read as an override: {first}"
    if match := re.match(r"Could not override '(.+?)'", first):
        key = match[1]
        return f"{key} is unknown: --cfg job lists the keys; to add a key that your own code reads, write +{key}=…"
    first = first.removeprefix("Error merging override ").removesuffix(":")
    reason = str(error.__cause__).split("\n", 1)[0] if error.__cause__ else ""
    if reason.endswith("is not a ListConfig, list or tuple."):
        key, _, value = first.partition("=")
        reason = f"expected a list, '{key}=[{value}]'"
    return ": ".join(filter(None, (first, reason)))
