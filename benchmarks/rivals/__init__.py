"""What others make of the same work: transformers' own serving, TRL's trainer, ART's plain steps."""
