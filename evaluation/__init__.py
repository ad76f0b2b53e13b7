"""How it is judged: protocols, metrics, result records, figures, the report, the paper's numbers as data."""
