"""The system's Chromium, for tests that drive a page."""

from __future__ import annotations

import shutil

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""Path of the program; ``None`` where there is none."""
