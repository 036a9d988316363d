"""Checks of the installed llama.cpp, run in a process of their own that `hardware.trial` starts and reads."""
