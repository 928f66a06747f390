"""Serving: answering conversations with a checkpoint, exactly and in batches.

What is answered here is what is trained later, so every answer comes with its token ids and log-probabilities.
"""
