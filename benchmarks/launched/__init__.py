"""What `benchmarks.orchestration` is made of: a UI that is asked as a browser asks it, plain assets, played windows."""
