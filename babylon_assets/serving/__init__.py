"""Serving: the gateway that answers with the promoted policy and records every answer.

What is answered here is trained on later, so every answer has its token ids and log-probabilities.
"""
