"""CSS of a benchmark's page, for light and dark screens, wide and narrow ones, and paper."""

from __future__ import annotations

from typing import Final

from internvl_gguf.bench.report.theme import SHADES


def _variables(dark: bool) -> str:
    return " ".join(f"--{role}: {shade.dark if dark else shade.light};" for role, shade in SHADES.items())


STYLE: Final = (
    f":root {{ color-scheme: light dark; {_variables(dark=False)} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(dark=True)} }} }}\n"
    f"@media print {{ :root {{ {_variables(dark=False)} }} }}\n"
    """
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem clamp(0.75rem, 3vw, 2.5rem) 3rem; max-width: 104rem;
  background: var(--surface); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: clamp(1.4rem, 4vw, 2rem); line-height: 1.2; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2rem 0 0.5rem; }
h3 { font-size: 1.05rem; margin: 0 0 0.25rem; }
p, dl, ul { max-width: 75ch; }
ul { padding-left: 1.25rem; }
li, p { overflow-wrap: anywhere; }
.facts, .notes, figcaption { color: var(--muted); font-size: 0.875rem; }
.facts, .notes p { margin: 0.15rem 0; }
.advice { border-left: 4px solid var(--pictures); padding-left: 0.75rem; font-size: 1.05rem; }
.scroll {
  /* A shadow at the side to which the table goes on: what scrolls with it covers the shadow at its ends. */
  overflow-x: auto; background:
    linear-gradient(to right, var(--surface) 40%, transparent) left / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--surface) 40%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--muted), transparent) right / 1rem 100% no-repeat scroll;
}
td small { color: var(--muted); }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--pictures); outline-offset: 2px; }
table { border-collapse: separate; border-spacing: 0; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); padding-bottom: 0.25rem; }
th, td { padding: 0.2rem 0.6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
thead th { vertical-align: bottom; border-bottom: 2px solid var(--muted); white-space: normal; }
small { white-space: nowrap; }
thead small { display: block; font-weight: normal; color: var(--muted); }
tr > :first-child { text-align: left; position: sticky; left: 0; background: var(--surface); padding-left: 0; }
tbody th { font-weight: normal; }
.best th { font-weight: 600; }
.mark { display: inline-block; width: 1.4em; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
dt { font-weight: 600; }
dt small { font-weight: normal; color: var(--muted); }
dd { margin: 0 0 0.4rem; }
summary { cursor: pointer; margin-top: 0.75rem; }
.charts { display: grid; gap: 2rem; grid-template-columns: minmax(0, 1fr); align-items: start; }
@media (min-width: 80rem) { .charts { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
figure { margin: 0; max-width: 48rem; }
figure svg { display: block; width: 100%; height: auto; }
.narrow { display: none; }
@media screen and (max-width: 40rem) { .wide { display: none; } .narrow { display: block; } }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
pre { overflow-x: auto; padding: 0.75rem; border: 1px solid var(--grid); border-radius: 6px; }
@media print { .scroll { overflow: visible; } figure { break-inside: avoid; } }
"""
)
