"""Keys that results are kept under: everything that each part of a configuration depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from internvl_gguf._version import __version__
from internvl_gguf.bench.benchmark_plan import MeasurementSettings
from internvl_gguf.bench.best_of.settings import BestOfSettings
from internvl_gguf.bench.quality.sets import OFF, read_pictures, read_task, read_text
from internvl_gguf.bench.store import Key
from internvl_gguf.bench.sweep import RunConfig
from internvl_gguf.errors import ModelFileError
from internvl_gguf.gguf.fingerprint import file_fingerprint
from internvl_gguf.gguf.validation import read_text_headers
from internvl_gguf.hardware.identity import machine_identity
from internvl_gguf.models.local_files import ModelFiles

_OF_SPEED: Final = ("n_prompt", "n_gen")
_OF_TIME: Final = (
    *_OF_SPEED,
    "n_threads",
    "n_threads_batch",
)  # each value is summed by one thread, so they change no answer


@dataclass(frozen=True)
class RunIdentity:
    """Identity of a configuration, its files by content.

    Attributes:
        text, mmproj: fingerprints of the files.
        build: build of llama.cpp.
        run_config: the settings.
    """

    text: str
    mmproj: str
    build: str
    run_config: RunConfig

    @classmethod
    def of(cls, files: ModelFiles, build: str, run_config: RunConfig) -> RunIdentity:
        """Return the identity of local files; reads each once, unless its fingerprint is remembered.

        Raises:
            ModelFileError: a file cannot be read.
        """
        return cls(*_fingerprints(files.text, files.mmproj), build, run_config)

    def speed_key(self, measurements: MeasurementSettings) -> Key:
        """Return everything that speed depends on."""
        measured = {"repetitions": measurements.repetitions, "parallel": measurements.parallel}
        return {**self._base(()), **measured, "machine": machine_identity()}

    def memory_key(self) -> Key:
        """Return everything that memory depends on."""
        return {**self._base(_OF_SPEED), "machine": machine_identity()}

    def reference_key(self, measurements: MeasurementSettings) -> Key:
        """Return everything that the distributions of this configuration, as the reference, depend on."""
        text = None if measurements.text == OFF else _text_digest(measurements.text, measurements.chunks)
        pictures = None if measurements.pictures == OFF else _pictures_digest(measurements.pictures)
        return {**self._base(_OF_TIME), "text_set": text, "picture_set": pictures}

    def text_key(self, reference: RunIdentity, measurements: MeasurementSettings) -> Key:
        """Return everything that quality on text depends on; the mmproj is not part of it."""
        return {
            **self._of_text(),
            "text_set": _text_digest(measurements.text, measurements.chunks),
            "reference": reference._of_text(),
        }

    def pictures_key(self, reference: RunIdentity, measurements: MeasurementSettings) -> Key:
        """Return everything that quality on pictures depends on."""
        pictures = _pictures_digest(measurements.pictures)
        return {**self._base(_OF_TIME), "picture_set": pictures, "reference": reference._base(_OF_TIME)}

    def accuracy_key(self, task: str | None) -> Key:
        """Return everything that the right answers of a task depend on."""
        return {**self._base(_OF_TIME), "task": _task_digest(task)}

    def best_of_key(self, task: str | None, settings: BestOfSettings) -> Key:
        """Return everything that several answers to the questions of a task, and their time, depend on.

        Raises:
            ModelFileError: a critic's file cannot be read.
        """
        critics = [
            {**each.identity, "files": _fingerprints(Path(each.text), Path(each.mmproj))} for each in settings.critics
        ]
        asked = {"task": _task_digest(task), "best_of": {**asdict(settings), "critics": critics}}
        return {**self._base(_OF_SPEED), **asked, "machine": machine_identity()}

    def _of_text(self) -> dict[str, Any]:
        return {name: value for name, value in self._base(_OF_TIME).items() if name != "mmproj"}

    def _base(self, left_out: tuple[str, ...]) -> dict[str, Any]:
        settings = {name: value for name, value in self.run_config.settings.items() if name not in left_out}
        files = {"text": self.text, "mmproj": self.mmproj}
        return {**files, "build": self.build, "version": __version__, "settings": settings}


def _fingerprints(text: Path, mmproj: Path) -> tuple[str, str]:
    """Return the fingerprints of a model's files; those of the parts of a split one stand in a row."""
    try:
        parts = [file_fingerprint(Path(header.label)) for header in read_text_headers(text)]
        return " ".join(parts), file_fingerprint(mmproj)
    except OSError as error:
        name = error.filename or text
        raise ModelFileError(f"{name} cannot be read: {error.strerror}.", "Check the disk and the path.") from error


@cache
def _text_digest(text: str | None, chunks: int | None) -> str:
    """Return the digest of a text, of how it is cut into chunks, and of how many are scored."""
    from internvl_gguf.bench.quality.measure_quality import (
        CHUNK,  # only now: it loads llama.cpp, which the children are for
    )

    return _digest(f"{CHUNK}x{chunks or ''} {read_text(text).text}")


@cache
def _pictures_digest(pictures: str | None) -> str:
    return read_pictures(pictures).digest


@cache
def _task_digest(task: str | None) -> str:
    """Return the digest of the questions and of everything that makes an answer right."""
    picture_set = read_task(task)
    right = [(item.answers, item.tolerance) for item in picture_set.items]
    return _digest(json.dumps([picture_set.digest, right]))


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
