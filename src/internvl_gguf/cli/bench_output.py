"""Where the report of `internvl bench` goes: looked at before anything is measured, written when all is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from internvl_gguf.cli.bench_options import FormatName
from internvl_gguf.cli.output import print_document, print_json_text, say
from internvl_gguf.cli.streams import require_stdout
from internvl_gguf.errors import InvalidRequestError

if TYPE_CHECKING:
    from internvl_gguf.bench.results import Results

_BY_SUFFIX: Final[dict[str, FormatName]] = {".json": "json", ".jsonl": "jsonl", ".csv": "csv"}


@dataclass(frozen=True)
class BenchOutput:
    """What a person wants to see of a benchmark.

    Attributes:
        budget: bytes that the advice is for; None is what is free on this machine.
        form: form of the report; None is the table for a terminal.
        file: where the report goes; None for stdout.
        html: where a page goes, if anywhere.
        plot: where the charts go, if anywhere.
    """

    budget: int | None
    form: FormatName | None
    file: Path | None
    html: Path | None
    plot: Path | None

    def check(self) -> None:
        """See that everything can be written, before hours go into it.

        Raises:
            InvalidRequestError: a file that cannot be written, one for two things, or charts without matplotlib.
            InternVLError: stdout is closed, and the report is to go there.
        """
        if self.file is None:
            require_stdout()
        files = [path for path in (self.file, self.html, self.plot) if path is not None]
        if files:
            from internvl_gguf.bench.report.figures import require_matplotlib, require_place

            for path in files:
                require_place(path)
            if self.html or self.plot:
                require_matplotlib()
        if len({path.absolute() for path in files}) < len(files):
            raise InvalidRequestError("One file is named for two things.", "Name a file for each.")

    def write(self, results: Results) -> None:
        """Print the report, or write it, and the page and the charts.

        Raises:
            InvalidRequestError: a file cannot be written after all.
        """
        self._write_report(results)
        if self.html:
            from internvl_gguf.bench.report.page import write_page

            write_page(self.html, results, self.budget)
            say(f"Wrote {self.html}")
        if self.plot:
            from internvl_gguf.bench.report.advice import advise
            from internvl_gguf.bench.report.figures import write_plot

            write_plot(self.plot, results, advise(results, self.budget))
            say(f"Wrote {self.plot}")

    def _write_report(self, results: Results) -> None:
        form = self.form or (_BY_SUFFIX.get(self.file.suffix.lower(), "md") if self.file else None)
        if form is None:
            from internvl_gguf.cli.bench_report import print_report

            print_report(results, self.budget)
            return
        from internvl_gguf.bench.report.formats import render

        text = render(results, form, self.budget)
        if self.file is None and form in ("json", "jsonl"):
            print_json_text(text)
            return
        if self.file is None:
            print_document(text)
            return
        from internvl_gguf.bench.report.figures import write_report

        write_report(self.file, text.encode())
        say(f"Wrote {self.file}")
