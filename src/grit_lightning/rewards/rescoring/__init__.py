"""Stored rollouts under another reward or judge: reading them, comparing the scores, and telling people.

No model is needed, and torch is not imported.
"""
