"""Types and resolvers of the config, and a check of its values against the constructors they are passed to.

Nothing here imports torch, so that ``--help`` stays quick.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from grit_lightning.app.former_names import FORMER_TARGETS
from grit_lightning.errors import ConfigError
from grit_lightning.system.paths import asset, cache_folder

_KEYS_OF_HYDRA_AND_TASKS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_", "_name_", "_takes_")


@dataclass
class Schema:
    """Types of the top-level scalars, whose values live in ``conf/config.yaml``; :func:`check` checks the groups."""

    name: str = "???"
    out: str = "???"
    resume: str | None = "???"
    allow_changed: list[str] = "???"  # type: ignore[assignment]
    optimized_metric: str | None = "???"
    run: str | None = "???"
    runs: list[str] = "???"  # type: ignore[assignment]
    seed: int = "???"  # type: ignore[assignment]
    threads: int | None = "???"  # type: ignore[assignment]
    task: Any = "???"
    model: Any = "???"
    peft: Any = None
    prompt: Any = "???"
    data: Any = "???"
    reward: Any = "???"
    judge: Any = "???"
    module: Any = "???"
    objective: Any = "???"
    rollout: Any = "???"
    evaluation: Any = "???"
    optimizer: Any = "???"
    scheduler: Any = "???"
    trainer: Any = "???"
    # Optional, as they can be removed on the command line: ~logger ~callbacks
    logger: Any = None
    callbacks: Any = None
    suite: Any = None  # of task=bench


def register() -> None:
    """Register the schema and the resolvers with Hydra.

    ``${asset:NAME}`` resolves to a path inside the package, and ``${cache:NAME}`` to a path in the cache folder of
    downloads and generated weights.
    """
    ConfigStore.instance().store(name="schema", node=Schema)
    OmegaConf.register_new_resolver("asset", lambda name: str(asset(name)), replace=True)
    OmegaConf.register_new_resolver("cache", lambda name: str(cache_folder() / name), replace=True)


def check(config: DictConfig, *groups: str) -> dict[str, Any]:
    """Resolve a config and check every node that names a constructor against that constructor's signature.

    Args:
        config: the composed config.
        groups: top-level groups to resolve and check; without any, the whole config.

    Returns:
        The config, or the given groups of it, as plain dicts, lists and scalars.

    Raises:
        ConfigError: a key is unknown to its constructor, a required key is missing, or a value has the wrong type.
        omegaconf.MissingMandatoryValue: a mandatory value, ``???``, was not given.
    """
    values = _resolved(config) if not groups else {key: _resolved(config[key]) for key in groups}
    known = {field.name for field in fields(Schema)}
    for key in map(str, values):
        # A user may add a group of their own and interpolate its values. An unknown scalar is a typing error.
        if key not in known and not isinstance(values[key], dict):
            raise ConfigError(f"{key} is unknown: the top-level keys are {', '.join(sorted(known))}")
    # Other groups interpolate values of the trainer, and the module contains other groups. So the trainer is checked
    # first and the module last: an error then names the key that the user wrote.
    for key in sorted(map(str, values), key=lambda key: {"trainer": 0, "module": 2}.get(key, 1)):
        _check_node(values[key], key)
    return values


def _resolved(node: DictConfig) -> Any:
    return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)


def _check_node(node: object, path: str) -> None:
    if isinstance(node, Mapping):
        for key, value in node.items():
            _check_node(value, f"{path}.{key}")
        if "_target_" in node:
            _check_call(node, path)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _check_node(value, f"{path}[{index}]")


def _check_call(node: Mapping[str, Any], path: str) -> None:
    name = node["_target_"]
    try:
        target = get_object(name)
        parameters = inspect.signature(target).parameters
    except (ImportError, ValueError, TypeError, InstantiationException, AttributeError) as error:
        moved = f"; it is now {FORMER_TARGETS[name]}" if name in FORMER_TARGETS else ""
        raise ConfigError(f"{path}._target_ is {name!r}, which cannot be imported: {error}{moved}") from error
    arguments = {key: value for key, value in node.items() if key not in _KEYS_OF_HYDRA_AND_TASKS}
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key in arguments:
        if key not in parameters and not open_ended:
            raise ConfigError(f"{path}.{key} is unknown: {name} takes {', '.join(parameters)}")
    if not node.get("_partial_") and "_args_" not in node:
        for key, parameter in parameters.items():
            if (
                parameter.default is parameter.empty
                and parameter.kind is parameter.KEYWORD_ONLY
                and key not in arguments
            ):
                raise ConfigError(f"{path}.{key} is missing: {name} needs it")
    hints = _type_hints(target)
    for key, value in arguments.items():
        if key in hints and not admits(hints[key], value):
            raise ConfigError(f"{path}.{key} is {value!r}, expected {_spelled(hints[key])}")


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # annotations of a library that only a type checker can resolve
        return {}


def admits(hint: Any, value: object) -> bool:
    """Tell whether a YAML value may be passed for a parameter annotated with ``hint``.

    An annotation that cannot be compared with YAML values, such as a callable, admits every value.
    """
    if isinstance(value, Mapping) and "_target_" in value:
        return True  # an object built from this node, which is checked separately
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(admits(choice, value) for choice in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint in (None, type(None)):
        return value is None
    if hint in (int, float, bool, str):
        return _is_scalar(hint, value)
    kind = origin or hint
    if not inspect.isclass(kind) or kind in (object, Any):  # inspect.isclass(Any) is true
        return True
    if isinstance(value, list):
        return issubclass(kind, Sequence | tuple) or issubclass(list, kind)
    if isinstance(value, Mapping):
        return issubclass(dict, kind)
    return issubclass(kind, Path) and isinstance(value, str)


def _is_scalar(hint: type, value: object) -> bool:
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _spelled(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_spelled(choice) for choice in get_args(hint))
    if origin is Literal:
        return " | ".join(map(str, get_args(hint)))
    if hint is type(None):
        return "null"
    return getattr(hint, "__name__", str(hint))
