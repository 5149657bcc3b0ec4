"""Rescoring of stored rollouts under another reward or judge: reading, comparison, report. Needs no model or torch."""
