"""The simulated game: a seeded market, its players and what they write into the game's own tables.

It stands in for the Babylon game on a machine that has none. It plays through a policy that somebody hands it
and knows nothing of training, of checkpoints or of Dagster.
"""
