"""Benches: what the product is held to, measured side by side in one run. `make bench-NAME` runs one.

Each prints a table and writes `.babylon/bench/NAME.json`, a list of {name, value, unit, goal, holds}.
"""
