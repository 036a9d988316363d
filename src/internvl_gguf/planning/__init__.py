"""Plan what to run in the available memory: quant, vision encoder and its device, KV type, batch, layers on the GPUs.

The room `memory` predicts what a configuration takes; here configurations are searched, their speed estimated, and the
results ranked.

workload         the request: context, pictures, memory budget
candidates       the available quants of a model
expected_loss    accuracy that a quant is expected to lose
loss_scale       what a loss means to a reader of answers
planner          search: the best configuration of a quant that fits
speed_estimate   speed of a configuration on a machine
network_share    the network's part of it, with RPC servers
task_scores      published scores of models, by task
ranking, choice  the best quant, or the error that none fits
machine_memory   free memory of this machine's devices
remote_devices   devices of RPC servers
auto_quant       choose a quant for this machine when the user names none
placement        ways to load a local model, with smaller fallbacks
fit_hints        options that would make a model fit
plan_text        a plan in words and tables
"""

from internvl_gguf.planning.candidates import Candidate, Encoder
from internvl_gguf.planning.choice import nothing_fits
from internvl_gguf.planning.fit_hints import ways_to_fit, ways_to_shorten
from internvl_gguf.planning.plan_text import (
    device_names,
    duration_text,
    memory_table,
    placement_text,
    quality_text,
    reason,
    short_duration_text,
    two_digits,
    verdict,
)
from internvl_gguf.planning.planner import Configuration, Planner, geometric_mean
from internvl_gguf.planning.ranking import cost_of, rank
from internvl_gguf.planning.task_scores import Task, TaskScores
from internvl_gguf.planning.workload import (
    MARGIN,
    MemoryBudget,
    Preference,
    Workload,
    check_pictures_fit,
    context_for,
    most_tiles,
)

__all__ = [
    "MARGIN",
    "Candidate",
    "Configuration",
    "Encoder",
    "MemoryBudget",
    "Planner",
    "Preference",
    "Task",
    "TaskScores",
    "Workload",
    "check_pictures_fit",
    "context_for",
    "cost_of",
    "device_names",
    "duration_text",
    "geometric_mean",
    "memory_table",
    "most_tiles",
    "nothing_fits",
    "placement_text",
    "quality_text",
    "rank",
    "reason",
    "short_duration_text",
    "two_digits",
    "verdict",
    "ways_to_fit",
    "ways_to_shorten",
]
