"""`python -m internvl_gguf` is the `internvl` command."""

from internvl_gguf.cli import start

start()
