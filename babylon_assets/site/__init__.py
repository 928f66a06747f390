"""The local site: checkpoints, samples, agents and comparisons as pages of the ledger, read and never written."""
