"""The words of `internvl ask`: which are the model, the question and pictures."""

from __future__ import annotations

from pathlib import Path

import typer

from internvl_gguf.cli import form_options, options
from internvl_gguf.cli.output import say
from internvl_gguf.cli.run import option_errors
from internvl_gguf.errors import InvalidRequestError


def without_pictures(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words of the command line that are no files of pictures or clips, and those files."""
    pictures = [word for word in words if _is_picture_file(word)]
    for picture in pictures:
        say(f"Attached {picture}, as with -i.")
    return [word for word in words if word not in pictures], pictures


def split_arguments(
    words: list[str], model: str | None = None, prompt: str | None = None
) -> tuple[str | None, str | None]:
    """Return MODEL and PROMPT of the command line; None for one that is missing.

    A single word is the question, unless it names a model and the question comes through a pipe.

    Args:
        words: the arguments.
        model: of --model.
        prompt: of --prompt.
    """
    from internvl_gguf.chat.typed_line import has_picture_name

    missing = (model is None) + (prompt is None)
    if len(words) > missing:
        question = words[1:] if model is None and options.names_model(words[0]) else words
        with option_errors():
            raise InvalidRequestError(
                f"The question came as {len(question)} words.", f'Put the question in quotes: "{" ".join(question)}"'
            )
    if len(words) == 2 and has_picture_name(words[0]):
        raise typer.BadParameter(f"there is no file {words[0]}; pictures are given with -i", param_hint="MODEL")
    if len(words) == 2:
        model, prompt = words
    elif words and model is not None:
        (prompt,) = words
    elif words and (prompt is not None or (" " not in words[0] and options.names_model(words[0]))):
        (model,) = words
    elif words:
        (prompt,) = words
    return model, None if prompt == "-" else prompt


def arguments_of_batch(
    words: list[str], images: list[str], videos: list[str], model: str | None, prompt: str | None
) -> tuple[str | None, str | None]:
    """Return MODEL and PROMPT of the command line where the pictures come from elsewhere; None for one that is missing.

    A single word without a space is the model, as a question of one word is rarer than a batch of questions.
    """
    if any(map(_is_picture_file, words)):
        raise typer.BadParameter(
            "the shell made several names of it: put the glob in quotes, or name the folder", param_hint="--batch"
        )
    if images:
        raise typer.BadParameter("the pictures are those that --batch names", param_hint="--image")
    if videos:
        raise typer.BadParameter(
            'the clips are those that --batch names, each line its own: "videos": [...]', param_hint="--video"
        )
    if not (len(words) == 1 and model is None and " " not in words[0]):
        model, prompt = split_arguments(words, model, prompt)
    else:
        (model,) = words
    if prompt is not None and not prompt.strip():
        raise typer.BadParameter("the question is empty; leave it out where each line has its own", param_hint="PROMPT")
    return model, prompt


def refuse_stdin_twice(prompt: str | None, images: list[str], schema: str | None, grammar: str | None) -> None:
    """Refuse two things on stdin.

    Args:
        prompt: the question, or the file of questions; None and "-" for stdin.
        images, schema, grammar: as they were given.

    Raises:
        typer.BadParameter: there are two.
    """
    from internvl_gguf.cli.stdin import is_stdin

    on_stdin = {
        "the question": prompt is None or prompt == "-",
        "a picture": any(map(is_stdin, images)),
        "the schema": form_options.reads_stdin(schema),
        "the grammar": form_options.reads_stdin(grammar),
    }
    names = [name for name, is_there in on_stdin.items() if is_there]
    if len(names) > 1:
        raise typer.BadParameter(
            f"{names[0]} and {names[1]} cannot both come on stdin: write one out, or name its file",
            param_hint="PROMPT" if prompt is None else "--batch" if prompt == "-" else f"--{names[1].split()[1]}",
        )


def _is_picture_file(word: str) -> bool:
    from internvl_gguf.chat.typed_line import has_picture_name

    return has_picture_name(word) and Path(word).is_file()
