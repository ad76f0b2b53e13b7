"""The data code: raw Amazon reviews to splits, in Polars, free of Dagster."""
