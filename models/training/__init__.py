"""Training any model that learns: configuration, loop, record, resumable state, several processes."""
