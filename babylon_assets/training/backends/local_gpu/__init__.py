"""The local GPU backend: ART's LocalBackend with unsloth and vLLM, in a process of its own."""
