"""The language backbone: where it comes from, how its layers are read and run."""
