"""Environments: where trajectories come from and what is good there, one package each behind one protocol."""
