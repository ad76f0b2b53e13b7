"""Raw lines to tables."""
