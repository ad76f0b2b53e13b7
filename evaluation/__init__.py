"""How it is judged: protocols, metrics, result records, figures, the report, and the paper's numbers as data."""
