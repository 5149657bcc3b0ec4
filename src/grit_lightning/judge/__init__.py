"""Judges: callables that score from 0 to 1 how well an answer agrees with the reference answer to a question.

``ExactMatch`` compares strings, ``OptionJudge`` reads the option that an answer names. ``LLMJudge`` asks a language
model over HTTP: at OpenAI, at Azure, or at any server with OpenAI's protocol.
"""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.judge.chat.client import Limits
    from grit_lightning.judge.chat.endpoint import AzureEndpoint, Endpoint
    from grit_lightning.judge.chat.reply_cache import CacheOptions
    from grit_lightning.judge.exact import ExactMatch
    from grit_lightning.judge.llm import LLMJudge, Price
    from grit_lightning.judge.option import OptionJudge
    from grit_lightning.judge.protocol import AsksAhead, Judge

__all__ = [
    "AsksAhead",
    "AzureEndpoint",
    "CacheOptions",
    "Endpoint",
    "ExactMatch",
    "Judge",
    "LLMJudge",
    "Limits",
    "OptionJudge",
    "Price",
]

__getattr__ = lazy_face(
    __name__,
    {
        "chat.client": ["Limits"],
        "chat.endpoint": ["AzureEndpoint", "Endpoint"],
        "chat.reply_cache": ["CacheOptions"],
        "exact": ["ExactMatch"],
        "llm": ["LLMJudge", "Price"],
        "option": ["OptionJudge"],
        "protocol": ["AsksAhead", "Judge"],
    },
)
