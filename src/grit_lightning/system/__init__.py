"""Helpers for disk, network and terminal: atomic files, paths, JSON Lines, retries, tables, figures, process rank."""
