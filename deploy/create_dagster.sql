-- Dagster's tables get a database of their own. PostgreSQL's image runs this once, when its volume is empty.
CREATE DATABASE babylon_dagster;
