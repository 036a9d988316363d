"""Check the installed llama.cpp on this machine before it loads a user's model.

The checks run in child processes (`internvl_gguf.llama.trial`); this side imports no native library.
docs/robustness.md lists the checks and their bounds.
"""

from internvl_gguf.hardware.trial.steps import Needs
from internvl_gguf.hardware.trial.usable_settings import UsableSettings, find_usable_settings

__all__ = ["Needs", "UsableSettings", "find_usable_settings"]
