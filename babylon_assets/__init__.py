"""babylon_assets: turns every closed hour of the Babylon game into a better trading agent.

Each hour is a window and a partition of a Dagster graph: trajectories are read, scored, frozen into a dataset and
trained into the next checkpoint of a chain. Nothing is imported or read when this package is imported.
"""
