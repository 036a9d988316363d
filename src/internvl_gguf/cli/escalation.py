"""`internvl ask --escalate`: ask a cascade of models, and say which one answered and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from internvl_gguf.cli.downloads import obtain
from internvl_gguf.cli.output import StatusLine, StreamedAnswer, say
from internvl_gguf.cli.run import option_errors
from internvl_gguf.config import DEFAULT_THRESHOLD, AskOptions, EngineConfig, EngineOptions
from internvl_gguf.errors import InvalidRequestError
from internvl_gguf.planning.auto_quant import machine_chooser

if TYPE_CHECKING:
    from internvl_gguf.models.local_files import ModelFiles
    from internvl_gguf.session import Session
    from internvl_gguf.session.cascade import CascadeReply, CascadeStep
    from internvl_gguf.types import Picture, Video


class Progress(Protocol):
    """What takes time at the moment, shown to the user.

    Attributes:
        line: where it is shown.
    """

    line: StatusLine

    def notice(self, line: str) -> None:
        """Show a notice."""

    def load(self, done: float) -> None:
        """Show the fraction of a model that is loaded."""

    def tiles(self, done: int, total: int) -> None:
        """Show the tiles that are encoded."""


def cascade_models(first: str, others: str, threshold: str | None) -> tuple[list[str], list[float] | None]:
    """Return the models of a cascade and their thresholds, one alone for all; None for the default.

    Args:
        first: the model of the command.
        others: as --escalate names them.
        threshold: as --threshold gives them.

    Raises:
        typer.Exit: a name is missing, or a threshold is no number; the user was told.
    """
    with option_errors():
        names = [name.strip() for name in others.split(",")]
        if not all(names):
            raise InvalidRequestError(
                f"A model is missing in --escalate {others!r}.", "Write names with commas between them."
            )
        return [first, *names], None if threshold is None else [_number(part) for part in threshold.split(",")]


def ask_cascade(
    models: Sequence[str],
    thresholds: Sequence[float] | None,
    prompt: str,
    pictures: list[Picture | Video],
    opening: dict[str, Any],
    asked: AskOptions,
    *,
    quiet: bool,
    progress: Progress,
) -> CascadeReply:
    """Ask models until one is sure of its answer; print the answer, and say who gave it.

    Ctrl-C while a later one is asked prints the answer that is there.

    Args:
        models: their names, the smallest first.
        thresholds: of each but the last, or one for all; None for the default.
        prompt, pictures, asked: the question.
        opening: arguments of `Session.open`, and `mmproj`.
        quiet: whether the answer is printed elsewhere.
        progress: shows what takes time.

    Raises:
        typer.Exit: models that are no cascade, or thresholds out of range; the user was told.
        InternVLError: as `Cascade.ask`.
    """
    from internvl_gguf.session.cascade import Cascade

    mmproj = opening.pop("mmproj")
    config = EngineConfig(**{name: opening[name] for name in EngineOptions.__annotations__ if name in opening})

    def find(model: str) -> ModelFiles:
        with progress.line.hidden():
            return obtain(model, mmproj, machine_chooser(config))

    def begin(model: str, session: Session) -> None:
        progress.line.show(f"Asking {model}")
        session.on_tiles(progress.tiles)

    answered: list[CascadeStep] = []
    of_all = thresholds if thresholds is None or len(thresholds) > 1 else thresholds[0]
    with option_errors():
        cascade = Cascade(
            models,
            threshold=DEFAULT_THRESHOLD if of_all is None else of_all,
            find=find,
            on_notice=progress.notice,
            on_load=progress.load,
            **opening,
        )
    with cascade:
        try:
            answer = cascade.ask(prompt, pictures, on_session=begin, on_step=answered.append, **asked)
        except KeyboardInterrupt:
            _show_last(answered, progress, quiet=quiet)
            raise
    progress.line.stop()
    if not quiet:
        _print(answer.reply.text)
    say(f"Answered by {answer.answered_by}: {answer.why}.")
    return answer


def _show_last(answered: Sequence[CascadeStep], progress: Progress, *, quiet: bool) -> None:
    last = next((step for step in reversed(answered) if step.reply), None)
    if last is None or last.reply is None or quiet:
        return
    progress.line.stop()
    _print(last.reply.text)
    say(f"Answered by {last.model}: the next one was interrupted.")


def _print(text: str) -> None:
    answer = StreamedAnswer()
    answer.write(text)
    answer.end()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequestError(f"--threshold has {text.strip()!r}.", "Give a number from 0 to 1.") from None
