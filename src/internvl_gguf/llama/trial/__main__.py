"""The process in which the installed library is tried: `python -m internvl_gguf.llama.trial`.

It reads what to try as one line of JSON from stdin: `device`, `extra_buffers`, `flash_attn` (`checks.Setting`), and
names of checks: `only` these, all if it is empty, and `skip` those. It prints one JSON object a line: `features`, the
instruction sets of the build; for each check `start` with its name, then `done` with its name and how it went, as
`trial.outcomes.Outcome` keeps it; at the end `finished`. A library that fails ends this process, which tells the other
side which check it was.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from internvl_gguf.errors import InternVLError, NotNumbersError
from internvl_gguf.llama.library import cpu_features
from internvl_gguf.llama.trial.library_checks import Check, Setting, checks


def main() -> None:
    """Do the checks that are asked for on stdin."""
    asked = json.loads(sys.stdin.readline())
    only, skipped = asked.pop("only"), set(asked.pop("skip"))
    _say(features=cpu_features())
    for name, check in checks(Setting(**asked)):
        if name not in skipped and (not only or name in only):
            _say(start=name)
            _say(done=name, **_outcome(check))
    _say(finished=True)


def _outcome(check: Check) -> dict[str, Any]:
    """How a check went, as it is kept."""
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


def _say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
