"""The embedded engine answers conversations in continuous batches, on the CPU or on a CUDA device."""
