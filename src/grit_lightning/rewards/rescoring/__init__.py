"""Stored rollouts scored again under another reward or judge: read, compared, reported. No model, no torch."""
