"""Where a judge is asked, and with which key."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import httpx

from grit_lightning.errors import ConfigError, JudgeError

_PATH = "chat/completions"


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A server that speaks OpenAI's chat-completions protocol.

    The key is read from the environment when a request is made. No object holds it, so no config, log or pickle can.

    Attributes:
        url: the base address, such as ``https://api.openai.com/v1``.
        key_variable: the environment variable with the key, sent as a bearer token; ``None`` where none is needed.
        key_required: whether to refuse to start without it.
        may_lack_schemas: whether a request that is refused (400, 422) is made again without ``response_format``.
    """

    url: str
    key_variable: str | None
    key_required: bool
    may_lack_schemas: bool

    def __post_init__(self) -> None:
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"judge.endpoint.url cannot be read as an address: {error}") from error
        if url.userinfo or url.query:  # not repeated: it may be the key
            raise ConfigError(
                "judge.endpoint.url holds a user, a password or a query: expected http(s)://HOST/PATH alone, "
                "with the key in the environment"
            )
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(f"judge.endpoint.url is {self.url!r}, expected http(s)://HOST/PATH")
        if self.key_variable is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable):
            # Not repeated: where a name is expected, some give the key.
            raise ConfigError("judge.endpoint.key_variable is not the name of an environment variable")

    @property
    def address(self) -> str:
        """Where requests are sent."""
        return f"{self.url.rstrip('/')}/{_PATH}"

    def key(self) -> str:
        """The key, empty where there is none.

        Raises:
            JudgeError: it is needed and not there, or no HTTP header can hold it.
        """
        key = os.environ.get(self.key_variable, "").strip() if self.key_variable else ""
        if not key and self.key_required:
            raise JudgeError(f"the judge needs a key in the environment variable {self.key_variable}, which is not set")
        if not re.fullmatch(r"[\x21-\x7e]*", key):  # httpx would repeat it in its message
            raise JudgeError(
                f"the key in the environment variable {self.key_variable} holds a character that no key has"
            )
        return key

    def headers(self, key: str) -> dict[str, str]:
        """The headers that show the key."""
        return {"Authorization": f"Bearer {key}"} if key else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class AzureEndpoint(Endpoint):
    """A deployment of Azure OpenAI, which has an address of its own and takes the key in the header ``api-key``.

    Attributes:
        url: the resource, such as ``https://NAME.openai.azure.com``.
        deployment: its name.
        api_version: such as ``2024-10-21``.
    """

    deployment: str
    api_version: str

    def __post_init__(self) -> None:
        Endpoint.__post_init__(self)
        for name, value in (("deployment", self.deployment), ("api_version", self.api_version)):
            if not re.fullmatch(r"[\w.-]+", value, re.ASCII):
                raise ConfigError(f"judge.endpoint.{name} is {value!r}, expected letters, digits, dots and dashes")

    @property
    def address(self) -> str:
        """Where requests are sent."""
        return f"{self.url.rstrip('/')}/openai/deployments/{self.deployment}/{_PATH}?api-version={self.api_version}"

    def headers(self, key: str) -> dict[str, str]:
        """The header that shows the key."""
        return {"api-key": key}
