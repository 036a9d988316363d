"""Checks of the installed llama.cpp, run in a child process that `hardware.trial` starts and reads."""
