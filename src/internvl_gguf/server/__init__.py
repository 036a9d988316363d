"""The HTTP server, `internvl serve`."""
