"""GRIT data: the JSONL format, its images, and the endless stream of prompts."""
