"""The Dagster graph: assets, checks, jobs, sensors, schedules, and the processes that serve the UI."""
