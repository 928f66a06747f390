"""Evaluations: how good a checkpoint is, measured on a held-out market, on the record, and on the game's benchmarks.

They measure and keep what they measured. What a measurement leads to is decided in `domain.gates`.
"""
