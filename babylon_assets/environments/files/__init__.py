"""Trajectories in files: datasets exported for other tools, and imported from them."""
