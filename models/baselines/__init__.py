"""The baselines: one file each, from top to bottom."""
