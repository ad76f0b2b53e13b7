"""The sensors: each watches one thing, and asks for a run or tells Dagster of it."""
