"""Escaped text of a stranger, such as a server, for the terminal, the log and error messages."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return the text on one line, with each character that ``str.isprintable`` rejects written as ``\x1b`` or alike.

    Escaped are line breaks, tabs, control characters, terminal escape sequences, bidirectional overrides, lone
    surrogates and all spaces but the usual one. A stranger's text can thus neither forge a line of the log nor command
    the terminal.
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
