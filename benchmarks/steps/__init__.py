"""One optimizer step, ours and TRL's, measured side by side: what is measured, each side, and how it is told."""
