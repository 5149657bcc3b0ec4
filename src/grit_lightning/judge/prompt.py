"""The text that a judge is asked with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from grit_lightning.errors import ConfigError

FENCE = "fence"
"""The placeholder of a mark that untrusted text stands between."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A text with placeholders, such as ``{answer}``.

    Attributes:
        text: the template.
        fields: names of the placeholders.
    """

    text: str
    fields: tuple[str, ...]

    @classmethod
    def read(cls, path: str, fields: Collection[str], key: str) -> PromptTemplate:
        """The template in a file, checked.

        Args:
            path: a text file, UTF-8.
            fields: placeholders that it must have.
            key: what the config calls it, for messages.

        Raises:
            ConfigError: it cannot be read or lacks a placeholder.
        """
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{key}: {path} cannot be read: {error}") from error
        if missing := [f"{{{name}}}" for name in fields if f"{{{name}}}" not in text]:
            raise ConfigError(f"{key}: {path} lacks {', '.join(missing)}")
        return cls(text, tuple(fields))

    @property
    def version(self) -> str:
        """Changes with the text: the beginning of its SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with the value of each placeholder in its place, and the mark in that of ``{fence}``.

        All in one pass: what looks like a placeholder within a value stays as it is, as do all other braces. The mark
        is a hash of the values, so no value can hold it but by breaking the hash: an answer cannot close its own fence.
        """
        joined = "\0".join(f"{len(values[name])}:{values[name]}" for name in self.fields)
        fence = hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        known = {name: values[name] for name in self.fields} | {FENCE: fence}
        return re.sub(rf"\{{({'|'.join(known)})\}}", lambda match: known[match[1]], self.text)
