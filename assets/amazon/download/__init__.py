"""Raw files: found, made or downloaded."""
