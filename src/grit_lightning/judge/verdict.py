"""Parser of the score in a judge's reply."""

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
"""The ``response_format`` of a request, for servers that can restrict replies to a JSON schema."""

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
