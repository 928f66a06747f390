"""Settings: declared, checked and read in this package alone."""
