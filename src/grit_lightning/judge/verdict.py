"""The score in a judge's reply."""

from __future__ import annotations

import json
import re
from typing import Any

SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"score": {"type": "number"}},
            "required": ["score"],
            "additionalProperties": False,
        },
    },
}
"""``response_format`` of a request, for servers that can be held to a schema."""

# Possessive: what precedes the object is read once, whatever follows it.
_OPENING = re.compile(r"\s*+(?:```[A-Za-z]*+\s*+)?+(?=\{)")


def parse_verdict(text: str) -> float | None:
    """The score of a reply such as ``{"score": 0.5}``, 0 to 1, or ``None`` where there is none that can be trusted.

    The reply must begin with the JSON object, or with a code fence around it; what follows it is not read. Nothing may
    precede it, since a judge that first quotes the answer may be quoting a verdict which that answer contains. The
    score must be a JSON number from 0 to 1, given once. Linear in the length of the text.
    """
    opening = _OPENING.match(text)
    if opening is None:
        return None
    try:
        fields, _ = _DECODER.raw_decode(text, opening.end())
    except (ValueError, RecursionError):  # no JSON, a number that JSON does not have, brackets nested too deep
        return None
    score = fields.get("score")
    return score if isinstance(score, float) and 0.0 <= score <= 1.0 else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key is given twice")
    return fields


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


# Integers become floats: a reply may hold one of more digits than int reads.
_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse, parse_int=float)
