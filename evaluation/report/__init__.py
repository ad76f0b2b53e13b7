"""The report: tables, figures and sections, drawn from result records."""
