-- Run once, when the volume is empty: POSTGRES_DB makes Dagster's database, this one MLflow's.
CREATE DATABASE mlflow;
