"""The verdict of a judge: the form that a request demands of the reply, and the parser of the score in it."""

from __future__ import annotations

import json
import re
from typing import Any

GRADES = (0, 0.25, 0.5, 0.75, 1)
"""Scores that the prompts ask for, and the only ones with which a server that restricts replies can answer.

A list of values, unlike ``minimum`` and ``maximum``, is a bound that every server keeps. Of vLLM's backends, Outlines
ignores these two keywords, and llguidance bounds the number but not its digits, so that a small model may write digits
up to its limit of tokens. llama.cpp ignores them for fractions, and Azure OpenAI rejects them in strict mode. Quarters
are exact in binary, where XGrammar would spell 0.1 as 0.10000000000000001.
"""

SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"score": {"type": "number", "enum": list(GRADES)}},
            "required": ["score"],
            "additionalProperties": False,
        },
    },
}
"""The ``response_format`` of a request, for servers that can restrict replies to a JSON schema."""

CHOICES = [json.dumps({"score": grade}) for grade in GRADES]
"""All verdicts, for servers that can restrict replies to a list of texts."""

REQUEST_FIELDS: dict[str, dict[str, Any]] = {
    "schema": {"response_format": SCHEMA},
    "choice": {"structured_outputs": {"choice": CHOICES}},
    "guided_choice": {"guided_choice": CHOICES},
    "none": {},
}
"""Request fields that restrict the reply to a verdict, by the name of the way (``judge.structured_output``).

``schema`` is OpenAI's, which most servers know. ``choice`` is vLLM's; ``guided_choice`` is its name before vLLM 0.12.
"""

# Possessive quantifiers: the text before the object is scanned once, so that matching takes linear time.
_OPENING = re.compile(r"\s*+(?:```[A-Za-z]*+\s*+)?+(?=\{)")


def parse_verdict(text: str) -> float | None:
    """Return the score of a reply such as ``{"score": 0.5}``, 0 to 1, or ``None`` if there is no trustworthy score.

    The reply must begin with the JSON object, or with a code fence around it; any text after the object is ignored.
    Text before it is not accepted, because a model that first quotes the answer may be quoting a verdict contained in
    that answer. The score must be a JSON number from 0 to 1, given once. Parsing takes time linear in the length of
    the text.
    """
    opening = _OPENING.match(text)
    if opening is None:
        return None
    try:
        fields, _ = _DECODER.raw_decode(text, opening.end())
    except (ValueError, RecursionError):  # not JSON, a constant such as NaN, a repeated key, brackets nested too deeply
        return None
    score = fields.get("score")
    return score if isinstance(score, float) and 0.0 <= score <= 1.0 else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key is given twice")
    return fields


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


# Integers become floats, because int() raises on more than 4300 digits.
_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse, parse_int=float)
