"""Automation: what runs the line. The job, the Dagster instance, and the processes that serve the UI.

What an asset does is in `assets`; nothing here knows trajectories, rewards or checkpoints.
"""
