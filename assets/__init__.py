"""What exists: thin Dagster assets, one module a stage, and the types and resources that they use."""
