"""What to run in the memory there is: quant, vision encoder and its place, KV type, batch, layers on the GPUs.

`memory` says what a configuration takes and `speed` how fast it is; here the configurations are searched and ranked.

workload               what is wanted: context, pictures, budgets
candidates, quality    the quants there are, and what each loses
search                 configurations that fit
speed                  how fast one is on a machine
ranking, choice        which is best, and why none is
this_machine           what this machine has to plan with
auto_quant             the quant for this machine, where nobody names one
placement              how a model that is here is loaded, and what is tried where that fails
advice, report         words and tables for people
"""

from internvl_gguf.planning.advice import ways_to_fit
from internvl_gguf.planning.candidates import Candidate, Encoder
from internvl_gguf.planning.choice import nothing_fits
from internvl_gguf.planning.ranking import USABLE_LOSS, cost_of, rank
from internvl_gguf.planning.report import memory_table, placement_text, reason
from internvl_gguf.planning.search import MARGIN, Configuration, Planner, middle
from internvl_gguf.planning.workload import (
    Budget,
    Preference,
    Workload,
    check_pictures_fit,
    context_for,
)

__all__ = [
    "MARGIN",
    "USABLE_LOSS",
    "Budget",
    "Candidate",
    "Configuration",
    "Encoder",
    "Planner",
    "Preference",
    "Workload",
    "check_pictures_fit",
    "context_for",
    "cost_of",
    "memory_table",
    "middle",
    "nothing_fits",
    "placement_text",
    "rank",
    "reason",
    "ways_to_fit",
]
