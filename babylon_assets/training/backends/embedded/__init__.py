"""The embedded backend: trains in this process."""
