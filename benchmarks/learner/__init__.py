"""What `benchmarks.training` is made of: the layouts of a step, and windows of the demo with a watch on them."""
