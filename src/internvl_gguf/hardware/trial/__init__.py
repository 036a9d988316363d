"""The installed llama.cpp is tried on this machine before a model of the user's meets it.

Everything that computes is done in processes of their own (`internvl_gguf.llama.trial`); this side imports no native
library. docs/robustness.md says what is tried and with which bounds.
"""

from internvl_gguf.hardware.trial.steps import Needs
from internvl_gguf.hardware.trial.usable_settings import UsableSettings, find_usable_settings

__all__ = ["Needs", "UsableSettings", "find_usable_settings"]
