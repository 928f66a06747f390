"""The gateway over HTTP: protocol, keys, metrics, and the process that serves them."""
