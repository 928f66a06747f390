"""The hosted backend: ART's ServerlessBackend."""
