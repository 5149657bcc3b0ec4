"""One module per model family: loading, chat template, image tokens, positions, box space."""
