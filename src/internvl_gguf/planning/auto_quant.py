"""Choose a quant for this machine when the user names none."""

from __future__ import annotations

from internvl_gguf.config import USUAL_PICTURES, EngineConfig, PictureOptions
from internvl_gguf.hardware.cpu_tuning import host_settings
from internvl_gguf.hardware.roofline import recorded_roofline
from internvl_gguf.planning.choice import Choice, Choices, Chooser, choose
from internvl_gguf.utils.sizes import parse_vram


def machine_chooser(config: EngineConfig | None = None, pictures: PictureOptions = USUAL_PICTURES) -> Chooser:
    """Return a chooser of the best quant that this machine has memory for.

    Args:
        config: how the model will be run, with the budget of GPU memory if one was given.
        pictures: how pictures will be cut.
    """
    asked = config or EngineConfig()

    def chosen(choices: Choices) -> Choice:
        # Imported here because it loads llama.cpp, which is not needed if there is no choice.
        from internvl_gguf.planning.machine_memory import machine_budget, usable_gpus
        from internvl_gguf.planning.remote_devices import asked_servers, reported_devices

        reports, _ = asked_servers(asked.servers)
        budget = machine_budget(parse_vram(asked.vram), gpus=[*reported_devices(reports), *usable_gpus()]).budget
        host = host_settings(asked.n_threads)
        return choose(choices, asked, host.most_threads, budget, recorded_roofline(), host.n_ubatch, pictures)

    return chosen
