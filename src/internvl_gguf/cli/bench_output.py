"""The destination of the report of `internvl bench`: checked before the measurements, written after them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, get_args

from internvl_gguf.cli.bench_options import FormatName
from internvl_gguf.cli.output import print_document, print_json_text, say
from internvl_gguf.cli.streams import require_stdout
from internvl_gguf.errors import InvalidRequestError

if TYPE_CHECKING:
    from internvl_gguf.bench.results import Results

_BY_SUFFIX: Final[dict[str, FormatName]] = {".json": "json", ".csv": "csv"}
_FORMS: Final = get_args(FormatName)
_SUFFIXES: Final = ("", ".md", *_BY_SUFFIX, ".html", ".htm", ".png")


@dataclass(frozen=True)
class BenchOutput:
    """The form of a benchmark's report, and the files it is written to.

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

    @classmethod
    def parse(
        cls, budget: int | None, form: FormatName | None, output: str | None, html: Path | None, plot: Path | None
    ) -> Self:
        """Return the output that the options describe.

        Args:
            budget, form, html, plot: as the attributes.
            output: a file, whose ending says the form where none was given, or the name of a form.

        Raises:
            InvalidRequestError: `output` is neither, or names another form than `form`.
        """
        if output is None:
            return cls(budget, form, None, html, plot)
        named = next((known for known in _FORMS if output.lower() == known), None)
        if named is not None:
            if form not in (None, named):
                raise InvalidRequestError(f"-o says {named}, and another option {form}.", "Use one of the two.")
            return cls(budget, named, None, html, plot)
        file = Path(output)
        if not file.suffix and file.name == output and form is None:
            raise InvalidRequestError(
                f"-o is {output!r}, neither a form nor a file with an ending.",
                f"Use one of {', '.join(_FORMS)}, or name a file such as report.md or report.html.",
            )
        if form is None and file.suffix.lower() not in _SUFFIXES:
            raise InvalidRequestError(
                f"-o is {output!r}, and no report has that ending.",
                "Use .md, .json, .csv, .html or .png; or name the form with --output-format.",
            )
        if form is None and html is None and file.suffix.lower() in (".html", ".htm"):
            return cls(budget, form, None, file, plot)
        if form is None and plot is None and file.suffix.lower() == ".png":
            return cls(budget, form, None, html, file)
        return cls(budget, form, file, html, plot)

    def check(self) -> None:
        """Check that everything can be written, before measurements that take hours.

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
        """Print the report or write it to its file with the advice on stderr, then write the page and the charts.

        Raises:
            InvalidRequestError: a file cannot be written after all.
        """
        self._write_report(results)
        if self.html:
            from internvl_gguf.bench.report.page import write_page

            write_page(self.html, results, self.budget)
            say(f"Wrote {self.html}")
        if self.plot:
            from internvl_gguf.bench.report.figures import write_plot

            write_plot(self.plot, results, self.budget)
            say(f"Wrote {self.plot}")
        if self.file:
            from internvl_gguf.bench.report.advice import advise

            say(advise(results, self.budget))

    def _write_report(self, results: Results) -> None:
        form = form_of(self)
        if form is None:
            from internvl_gguf.cli.bench_report import print_report

            print_report(results, self.budget)
            return
        from internvl_gguf.bench.report.formats import render

        text = render(results, form, self.budget)
        if self.file is None and form == "json":
            print_json_text(text)
            return
        if self.file is None:
            print_document(text)
            return
        from internvl_gguf.bench.report.figures import write_report

        write_report(self.file, text.encode())
        say(f"Wrote {self.file}")


def form_of(output: BenchOutput) -> FormatName | None:
    """Return the form of a report: as was said, else by the ending of its file; None for the table for a terminal."""
    return output.form or (_BY_SUFFIX.get(output.file.suffix.lower(), "md") if output.file else None)
