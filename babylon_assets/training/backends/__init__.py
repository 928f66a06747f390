"""Training backends: one package each behind one protocol, and the choice among them."""
