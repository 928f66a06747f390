"""Where training runs: one package a backend, and the choice among them."""
