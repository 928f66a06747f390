"""Settings: declared, checked and read from the environment here and nowhere else."""
