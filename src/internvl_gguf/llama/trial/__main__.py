"""Check the installed library in a child process: `python -m internvl_gguf.llama.trial`.

The process reads one line of JSON from stdin: `device`, `extra_buffers`, `flash_attn` (`library_checks.Setting`), and
two lists of check names: `only` (empty for all but those of experts) and `skip`. It prints one JSON object a line:
`features`, the instruction sets of the build; for each check `start` with its name, then `done` with its name and the
fields of `hardware.trial.outcomes.Outcome`; at the end `finished`. If the library ends this process, the parent knows
from the last `start` which check did it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from internvl_gguf.errors import InternVLError, NotNumbersError
from internvl_gguf.llama.library import cpu_features
from internvl_gguf.llama.trial.library_checks import Check, Setting, checks, expert_checks


def main() -> None:
    """Run the checks that stdin asks for."""
    asked = json.loads(sys.stdin.readline())
    only, skipped = asked.pop("only"), set(asked.pop("skip"))
    _print_line(features=cpu_features())
    setting = Setting(**asked)
    named = [(name, check) for name, check in (*checks(setting), *expert_checks(setting)) if name in only]
    for name, check in named if only else checks(setting):
        if name not in skipped:
            _print_line(start=name)
            _print_line(done=name, **_outcome(check))
    _print_line(finished=True)


def _outcome(check: Check) -> dict[str, Any]:
    """Run a check and return its outcome, as it is kept."""
    try:
        answer = check()
    except NotNumbersError:
        return {"kind": "wrong", "what": "gives values that are not numbers"}
    except InternVLError as error:
        return {"kind": "refused", "what": error.message}
    facts = {"distance": answer.distance, "bound": answer.bound, "shifted": answer.shifted}
    if answer.distance <= answer.bound:
        return {"kind": "right", **facts}
    return {"kind": "wrong", "what": f"is {answer.distance:.0%} off, where {answer.bound:.1%} are allowed", **facts}


def _print_line(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
