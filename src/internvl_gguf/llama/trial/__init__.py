"""Checks of the installed llama.cpp, run in a process of their own; `internvl_gguf.trial` starts it and reads it."""
