"""The embedded engine: it answers conversations in batches, on the CPU or a CUDA device."""
