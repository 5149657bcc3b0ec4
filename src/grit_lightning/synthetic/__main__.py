"""The former name of ``python -m grit_lightning.data.shapes``, which it runs."""

from grit_lightning.data.shapes.__main__ import main

if __name__ == "__main__":
    raise SystemExit(main())
