"""The outcome of a command that a test has run."""

from __future__ import annotations

from subprocess import CompletedProcess


def succeeded(done: CompletedProcess[str]) -> str:
    """Check that a command ended well, and return what it printed."""
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout
