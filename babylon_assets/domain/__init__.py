"""The pure core: words, rules and arithmetic. No Dagster, ART, torch, database driver, clock or unseeded randomness."""
