"""A process that speaks as `internvl_gguf.llama.trial` does and fails as a plan says: `trial_stand_in.py PLAN`.

The plan is a JSON object: name of a check, then what becomes of it by step ("*" for every other one): "right",
"wrong", "refused", "hang", or the signal that ends the process. Each start is noted in the file PLAN.starts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from internvl_gguf.hardware.trial.steps import EXPERTS, Step


def main(path: Path) -> None:
    plan = json.loads(path.read_text())
    asked = json.loads(sys.stdin.readline())
    only, skipped = asked.pop("only"), asked.pop("skip")
    step = Step(**asked).name
    with Path(f"{path}.starts").open("a") as starts:
        starts.write(f"{step}\n")
    say(features=["AVX2", "AMX_INT8"])
    for name, by_step in plan.items():
        if name not in skipped and (name in only if only else not name.startswith(EXPERTS)):
            say(start=name)
            act(name, by_step.get(step, by_step.get("*", "right")))
    say(finished=True)


def act(name: str, fate: str) -> None:
    if fate == "right":
        say(done=name, kind="right", distance=0.01, bound=0.1, shifted=True if "encoder" in name else None)
    elif fate == "wrong":
        say(done=name, kind="wrong", what="is 80% off, where 10% are allowed", distance=0.8, bound=0.1)
    elif fate == "refused":
        say(done=name, kind="refused", what="There is no memory.")
    elif fate == "hang":
        sys.stdin.close()
        while True:
            signal.pause()
    else:
        ends_it = signal.Signals[fate]
        if ends_it != signal.SIGKILL:
            signal.signal(ends_it, signal.SIG_DFL)  # whoever runs the tests may have SIGHUP ignored
        os.kill(os.getpid(), ends_it)
        signal.pause()  # the signal comes at once, but not before this


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
