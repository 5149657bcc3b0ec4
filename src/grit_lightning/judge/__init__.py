"""Judges: how well an answer agrees with the reference answer to a question.

``ExactMatch`` asks nobody; ``LLMJudge`` asks a language model over HTTP, at OpenAI, at Azure, or at any server with
OpenAI's protocol.
"""

from grit_lightning.judge.chat.client import Limits
from grit_lightning.judge.chat.endpoint import AzureEndpoint, Endpoint
from grit_lightning.judge.chat.reply_cache import CacheOptions
from grit_lightning.judge.exact import ExactMatch
from grit_lightning.judge.llm import LLMJudge, Price
from grit_lightning.judge.protocol import AsksAhead, Judge, begin, gather, then

__all__ = [
    "AsksAhead",
    "AzureEndpoint",
    "CacheOptions",
    "Endpoint",
    "ExactMatch",
    "Judge",
    "LLMJudge",
    "Limits",
    "Price",
    "begin",
    "gather",
    "then",
]
