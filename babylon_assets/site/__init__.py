"""The local site: checkpoints, samples and agents as pages of the ledger, read and never written."""
