"""Data of other projects: one reader per layout, and the writer of our JSONL and images."""
