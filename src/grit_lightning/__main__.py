"""``python -m grit_lightning``."""

from grit_lightning.app.main import main

if __name__ == "__main__":
    main()
