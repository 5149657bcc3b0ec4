"""Address and key of a judge's server."""

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

    The key is read from the environment for each request. No object stores it, so no config, log or pickle contains it.

    Attributes:
        url: base address, such as ``https://api.openai.com/v1``.
        key_variable: name of the environment variable with the key, which is sent as a bearer token; ``None`` for a
            server without keys.
        key_required: True to refuse to start without a key.
        may_lack_schemas: True to repeat a request that the server rejects (400, 422) without a restriction of the
            reply's form (``judge.structured_output``).
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
        if url.userinfo or url.query:  # the message does not quote the URL, which may contain the key
            raise ConfigError(
                "judge.endpoint.url contains a user, a password or a query, expected http(s)://HOST/PATH alone, "
                "with the key in the environment"
            )
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(f"judge.endpoint.url is {self.url!r}, expected http(s)://HOST/PATH")
        if self.key_variable is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable):
            # The message does not quote the value, because it may be the key itself, given by mistake.
            raise ConfigError("judge.endpoint.key_variable is not the name of an environment variable")

    @property
    def address(self) -> str:
        """The URL of requests."""
        return f"{self.url.rstrip('/')}/{_PATH}"

    def key(self) -> str:
        """Return the key; an empty string if there is none.

        Raises:
            JudgeError: the key is required but not set, or contains a character that HTTP headers do not allow.
        """
        key = os.environ.get(self.key_variable, "").strip() if self.key_variable else ""
        if not key and self.key_required:
            raise JudgeError(f"the judge needs a key in the environment variable {self.key_variable}, which is not set")
        if not re.fullmatch(r"[\x21-\x7e]*", key):  # httpx would quote the key in its message
            raise JudgeError(
                f"the key in the environment variable {self.key_variable} contains a space, a control character "
                "or a non-ASCII character"
            )
        return key

    def headers(self, key: str) -> dict[str, str]:
        """Return the HTTP headers that contain the key."""
        return {"Authorization": f"Bearer {key}"} if key else {}


@dataclass(frozen=True, kw_only=True, slots=True)
class AzureEndpoint(Endpoint):
    """A deployment of Azure OpenAI, which has its own form of address and takes the key in the header ``api-key``.

    Attributes:
        url: address of the resource, such as ``https://NAME.openai.azure.com``.
        deployment: name of the deployment.
        api_version: version of the API, such as ``2024-10-21``.
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
        """The URL of requests."""
        return f"{self.url.rstrip('/')}/openai/deployments/{self.deployment}/{_PATH}?api-version={self.api_version}"

    def headers(self, key: str) -> dict[str, str]:
        """Return the HTTP header that contains the key."""
        return {"api-key": key}
