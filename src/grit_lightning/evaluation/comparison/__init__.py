"""Evaluations on the same samples, compared sample by sample: paired differences, flips, report and plot."""
