"""Text for the terminal without control characters, because data files and models may write any characters."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return the text on one line, with every character that is not printable escaped: ``\x1b``, ``\n``, ``\u202e``.

    Without this, text from a data file or a model could clear the screen, hide or forge lines, or retitle the window.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def printable_lines(text: str) -> str:
    """Return the text like :func:`printable`, but keep its line breaks."""
    return "\n".join(map(printable, text.split("\n")))
