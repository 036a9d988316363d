"""A quant for this machine, where nobody named one."""

from __future__ import annotations

from internvl_gguf.config import EngineConfig
from internvl_gguf.hardware.cpu_tuning import host_settings
from internvl_gguf.hardware.roofline import recorded_roofline
from internvl_gguf.planning.choice import Choice, Choices, Chooser, choose
from internvl_gguf.utils.sizes import parse_vram


def machine_chooser(config: EngineConfig | None = None) -> Chooser:
    """Chooses the best quant that this machine has memory for.

    Args:
        config: how it will be run, with a budget of GPU memory where one was given.
    """
    asked = config or EngineConfig()

    def chosen(choices: Choices) -> Choice:
        # Only now: it loads llama.cpp, which files that need no choice do without.
        from internvl_gguf.planning.this_machine import machine_budget

        budget = machine_budget(parse_vram(asked.vram)).budget
        host = host_settings(asked.n_threads)
        return choose(choices, asked, host.most_threads, budget, recorded_roofline(), host.n_ubatch)

    return chosen
