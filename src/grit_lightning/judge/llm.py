"""The judge that asks a language model over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from grit_lightning.errors import ConfigError, JudgeError
from grit_lightning.judge.chat.client import FAILURES, Limits, reason
from grit_lightning.judge.chat.endpoint import Endpoint
from grit_lightning.judge.chat.reply_cache import CacheOptions
from grit_lightning.judge.chat.service import Request, ServiceOptions, make_client, running, service, with_verdict
from grit_lightning.judge.chat.statistics import Counts, Statistics
from grit_lightning.judge.prompt import PromptTemplate
from grit_lightning.judge.verdict import REQUEST_FIELDS
from grit_lightning.system.retries import PermanentError

_OWN_FIELDS = ("messages", "model", "n", "response_format", "stream")
"""Request fields that the judge sets itself, so that ``parameters`` must not contain them."""

_BYTES_PER_TOKEN = 4
_TOKENS_PER_IMAGE = 1000
_PROBE_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Price of a million tokens, in any currency.

    Attributes:
        prompt: price of prompt tokens.
        completion: price of completion tokens.
    """

    prompt: float
    completion: float

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return the cost of these numbers of tokens."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


class LLMJudge:
    """Asks a language model to score an answer against the reference answer. Its settings are in ``conf/judge``.

    The object contains plain values only: threads, connections, cache and counts belong to the process (``service``).

    Args:
        endpoint: address and key of the server.
        model: name of the model at the server.
        parameters: further fields of each request, such as ``temperature`` and ``seed``.
        structured_output: way to make the server reply with a verdict and nothing else, of ``verdict.REQUEST_FIELDS``;
            in configs of earlier versions, true for ``schema`` and false for ``none``.
        prompt: path of a prompt template that contains ``{question}``, ``{reference}`` and ``{answer}``.
        limits: rate limits, timeouts and retries of the requests.
        price: price of the model's tokens.
        cache: folder and size of the reply cache on disk; ``None`` to store no replies.
        max_unscored: tolerated share of a step's questions that stay unscored, 0 to 1.
        patience: number of steps in a row with a larger unscored share after which the training stops.

    Raises:
        ConfigError: a value is invalid.
    """

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        model: str,
        parameters: Mapping[str, Any],
        structured_output: str | bool,
        prompt: str,
        limits: Limits,
        price: Price,
        cache: CacheOptions | None,
        max_unscored: float,
        patience: int,
    ) -> None:
        if not 0 <= max_unscored <= 1:
            raise ConfigError(f"judge.max_unscored is {max_unscored}, expected a share from 0 to 1")
        if patience < 1:
            raise ConfigError(f"judge.patience is {patience}, expected a number of steps of at least 1")
        if not model:
            raise ConfigError("judge.model is empty, expected the model's name at the server")
        if isinstance(structured_output, bool):
            structured_output = "schema" if structured_output else "none"
        if structured_output not in REQUEST_FIELDS:
            *names, last = REQUEST_FIELDS
            raise ConfigError(
                f"judge.structured_output is {structured_output!r}, expected {', '.join(names)} or {last}"
            )
        if own := [name for name in (*_OWN_FIELDS, *REQUEST_FIELDS[structured_output]) if name in parameters]:
            raise ConfigError(
                f"judge.parameters.{own[0]} is set by the judge, expected other fields, such as temperature"
            )
        self.model = model
        self.price = price
        self.max_unscored = max_unscored
        self.patience = patience
        self._parameters = dict(parameters)
        self._prompt = PromptTemplate.read(prompt, ("question", "reference", "answer"), "judge.prompt")
        self._options = ServiceOptions(
            endpoint=endpoint, limits=limits, cache=cache, structured_output=structured_output
        )

    @property
    def name(self) -> str:
        """The model and the version of the prompt. Scores of judges with different names are not comparable."""
        return f"{self.model}, prompt {self._prompt.version}"

    def __call__(self, question: str, reference: str, answer: str) -> float | None:
        """Ask the model and wait for the score, 0 to 1; ``None`` if the last attempt failed."""
        return self.ask(question, reference, answer).result()

    def ask(self, question: str, reference: str, answer: str) -> Future[float | None]:
        """Start a request and return a future of the score, 0 to 1, or of ``None`` if the last attempt failed.

        An empty answer scores 0 without a request.
        """
        if not answer.strip():
            empty: Future[float | None] = Future()
            empty.set_result(0.0)
            return empty
        return service(self._options).ask(self._question(question, reference, answer))

    def ask_about_images(self, text: str, images: Sequence[str], version: str) -> Future[float | None]:
        """Start a request with a custom prompt about images, and return a future of the score as ``ask`` does.

        Args:
            text: the complete prompt; the model must be told to reply with a score.
            images: data URLs of the images, which follow the text.
            version: version of the prompt's template.
        """
        return service(self._options).ask(self._request(text, images, version))

    def probe(self) -> None:
        """Send a test question, bypassing the cache, so that a wrong setting is noticed before training starts.

        Raises:
            JudgeError: the server returned no score.
        """
        # In a separate thread, because the caller may already run an event loop, as in a notebook.
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(asyncio.run, self._probe()).result()

    def take_counts(self) -> Counts:
        """Return and reset this process's counts, summed over all judges that share the server settings."""
        started = running(self._options)
        return Counts() if started is None else started.statistics.take()

    @property
    def last_failure(self) -> str:
        """Reason of the last failure to score an answer in this process; empty if there was none."""
        started = running(self._options)
        return "" if started is None else started.last_failure

    async def _probe(self) -> None:
        limits = self._options.limits
        limits = replace(limits, attempts=min(limits.attempts, _PROBE_ATTEMPTS))
        client = make_client(replace(self._options, limits=limits), Statistics(), processes=1)
        request = self._question("What is one and one?", "2", "two")
        try:
            await client.complete(request.body, tokens=request.tokens, accept=with_verdict)
        except FAILURES as error:
            address = self._options.endpoint.address
            raise JudgeError(f"the judge at {address} cannot be used: {reason(error)}{self._advice(error)}") from None
        finally:
            await client.aclose()

    def _advice(self, error: Exception) -> str:
        status = error.status if isinstance(error, PermanentError) else None
        if status in (401, 403):
            name = self._options.endpoint.key_variable
            return f"; check the key in {name}" if name else "; a key is needed: set judge.endpoint.key_variable"
        return f"; check judge.endpoint.url and judge.model={self.model}" if status == 404 else ""

    def _question(self, question: str, reference: str, answer: str) -> Request:
        values = {"question": question, "reference": reference, "answer": answer}
        return self._request(self._prompt.fill(values), (), self._prompt.version)

    def _request(self, text: str, images: Sequence[str], version: str) -> Request:
        shown = [{"type": "image_url", "image_url": {"url": url}} for url in images]
        content = [{"type": "text", "text": text}, *shown] if shown else text
        body = {**self._parameters, "model": self.model, "messages": [{"role": "user", "content": content}]}
        decisive = json.dumps([version, body], sort_keys=True)
        return Request(
            key=hashlib.sha256(decisive.encode()).hexdigest(),
            body=body,
            tokens=self._estimate(text) + _TOKENS_PER_IMAGE * len(images),
            about={"model": self.model, "prompt_version": version, "asked": text, "images": len(images)},
        )

    def _estimate(self, text: str) -> float:
        limits = (self._parameters.get(name) for name in ("max_tokens", "max_completion_tokens"))
        longest = max((limit for limit in limits if isinstance(limit, int)), default=0)
        return math.ceil(len(text.encode("utf-8", "replace")) / _BYTES_PER_TOKEN) + longest
