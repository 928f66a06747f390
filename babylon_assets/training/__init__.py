"""Training: from a frozen dataset and a parent checkpoint to the next checkpoint.

The only room that knows OpenPipe ART. Dagster is outside.
"""
