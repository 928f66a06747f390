"""Measurements of policies, and the run of the gate that compares them. The gate's rule is in `domain.gates`."""
