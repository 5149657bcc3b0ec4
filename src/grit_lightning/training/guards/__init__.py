"""Guards that stop training, or skip an update, when it would go wrong quietly."""
