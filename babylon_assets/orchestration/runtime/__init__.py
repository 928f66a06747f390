"""How runs go over their windows on Dagster: ranges, resuming, retries, the event log."""
