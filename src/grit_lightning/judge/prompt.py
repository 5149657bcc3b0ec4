"""Prompt templates of judges."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from grit_lightning.errors import ConfigError
from grit_lightning.system.files import require_regular

FENCE = "fence"
"""Placeholder of the fence: a mark that a template puts before and after untrusted text."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A prompt text with placeholders, such as ``{answer}``.

    Attributes:
        text: text of the template.
        fields: names of the placeholders that are filled with values.
    """

    text: str
    fields: tuple[str, ...]

    @classmethod
    def read(cls, path: str, fields: Collection[str], key: str) -> PromptTemplate:
        """Read a template from a file and check it.

        Args:
            path: path of a UTF-8 text file.
            fields: placeholders that the text must contain.
            key: config key of the path, for messages.

        Raises:
            ConfigError: the file cannot be read, or lacks a placeholder.
            DataError: it is no regular file.
        """
        require_regular(Path(path))
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{key}: {path} cannot be read: {error}") from error
        if missing := [f"{{{name}}}" for name in fields if f"{{{name}}}" not in text]:
            raise ConfigError(f"{key}: {path} lacks {', '.join(missing)}")
        return cls(text, tuple(fields))

    @property
    def version(self) -> str:
        """The first 12 hexadecimal digits of the text's SHA-256, so that each text has its own version."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the text with each placeholder replaced by its value, and ``{fence}`` replaced by the fence.

        All replacements happen in one pass, so a placeholder inside a value stays as it is, and so do other braces. The
        fence is a delimiter line that holds a hash of all values. A value that contained this hash would change it, so
        no answer can end its own quotation early.
        """
        joined = "\0".join(f"{len(values[name])}:{values[name]}" for name in self.fields)
        fence = hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        known = {name: values[name] for name in self.fields} | {FENCE: fence}
        return re.sub(rf"\{{({'|'.join(known)})\}}", lambda match: known[match[1]], self.text)
