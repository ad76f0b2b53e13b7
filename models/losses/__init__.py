"""The losses: pure functions of representations, item tables and states."""
