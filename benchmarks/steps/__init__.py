"""Measurement of one optimizer step of this package and of TRL: sizes, a process per side, floors and tables."""
