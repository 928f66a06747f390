"""The parts of `benchmarks.data`: its rows, the two ways it compares with, and a module for each kind of figure."""
