"""How runs go over windows: ranges, resuming, retries, the event log. The only room that knows Dagster's internals."""
