"""Write the report of a depth evaluation: one HTML page to read, to mail or to print.

The page is made from the results file and the figures beside it. It needs neither network nor
scripts: its pictures are within it, and its policy forbids the browser to load anything.
"""
from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2

from checkpoints.frames_seen import Leak
from datasets.corruptions import CORRUPTIONS, SEVERITIES
from evaluation.corruption_figures import PLOT, SHEET
from evaluation.depth_figures import BY_DISTANCE, IMAGES
from evaluation.results import HIGHER_IS_BETTER, JSON_NAME, describe_alignment, resampled_of
from evaluation.robustness_file import ROBUSTNESS, differing, network_of, read_robustness
from metrics.depth import DEPTH_METRICS
from metrics.intervals import LEVEL, Interval
from options import DEPTH, MonodepthOptions
from runtime.errors import DataError, counted
from runtime.files import write_atomically

PAGE_NAME = "report_{}.html"  # takes the name of the evaluation
QUALITY = 80  # of the pictures, WebP
READABLE, WIDEST = 44, 60  # pixels of a picture per rem that can be read; rem of the page
UNKNOWN = "-"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --line: #d0d0d0; --soft: #666; --good: #1a7f37; --bad: #c62828;
  --unknown: #b26a00 }
@media (prefers-color-scheme: dark) { :root { --line: #444; --soft: #aaa; --good: #4cc26a;
  --bad: #ff6b6b; --unknown: #f0a83c } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.6rem; line-height: 1.2; overflow-wrap: anywhere; margin: .5rem 0 }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; break-after: avoid }
p { margin: .5rem 0; overflow-wrap: anywhere }
.soft { color: var(--soft); font-size: .875rem }
.leak { border-left: .4rem solid; padding: .5rem .75rem; font-weight: 600;
  print-color-adjust: exact; -webkit-print-color-adjust: exact }
.good { color: var(--good) } .bad { color: var(--bad) } .unknown { color: var(--unknown) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .6rem .2rem 0; text-align: left;
  vertical-align: top }
.numbers td, .numbers th { white-space: nowrap; padding-right: 0 }
.numbers td + td, .numbers th + th { text-align: right; padding-left: 1.2rem }
@media (max-width: 32rem) { .numbers { font-size: .8125rem; width: 100% }
  .numbers td + td, .numbers th + th { padding-left: .4rem }
  .numbers td:last-child { white-space: normal } }
.wide { overflow-x: auto }
.wide img { height: auto; display: block; background: white }
.origin td { overflow-wrap: anywhere } .origin td:first-child { white-space: nowrap }
code, pre { font: .8125rem/1.5 ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere }
@media print { body { max-width: none; padding: 0; font-size: 11pt }
  .wide img { max-width: 100% }
  .wide, tr, pre { break-inside: avoid } }
"""


def write_report(folder: Path, name: str) -> None:
    """Write the report of an evaluation beside its results, and print its path and its size.

    Args:
        folder: of the results and the figures; a figure that is missing is left out.
        name: of the evaluation, as in the file of its results.

    Raises:
        DataError: the page cannot be written.
    """
    fields = json.loads((folder / JSON_NAME.format(name)).read_bytes())
    content = make_page(fields, [
        *headline(fields), leak_line(fields), *errors(fields),
        *figure("Error by distance", folder / BY_DISTANCE.format(name)),
        *figure("Best, median and worst image by abs_rel", folder / IMAGES.format(name)),
        *robustness(fields, folder, name), *further_errors(fields), *origin(fields)]).encode(
            errors="backslashreplace")  # the name of a folder may be no text
    path = folder / PAGE_NAME.format(name)
    write_atomically(path, content)
    print(f"wrote {path} ({len(content) / 1e6:.2f} MB)")


def make_page(fields: dict, parts: list[str]) -> str:
    """Return an HTML page with these parts."""
    return "\n".join([
        "<!DOCTYPE html>", '<html lang="en">', "<head>", '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title_of(fields))}</title>", f"<style>{STYLE}</style>", "</head>",
        "<body>", *parts, "</body>", "</html>", ""])


def title_of(fields: dict) -> str:
    """Return the split and the alignment in words."""
    split = Path(fields["lists"]["test"]["split"]).resolve().name
    return f"Depth on {split}, alignment {fields['alignment']}"


def headline(fields: dict) -> list[str]:
    """Return the title, and what was evaluated when."""
    return [f"<h1>{escape(title_of(fields))}</h1>",
            paragraph(f"Weights: {fields['weights']['folder']}"),
            paragraph(f"{counted(len(fields['lines']), 'image')}, evaluated {fields['date']}, "
                      f"commit {fields['commit'] or 'unknown'}", "soft")]


def leak_line(fields: dict) -> str:
    """Return how many test images were seen in training, coloured by what it means."""
    leak = Leak(**fields["seen_in_training"])
    kind = {None: "unknown", 0: "good"}.get(leak.seen, "bad")
    return paragraph(leak.describe(), f"leak {kind}")


def errors(fields: dict) -> list[str]:
    """Return the table of the paper's seven errors, and what its numbers are."""
    return [heading("Errors"), error_table(fields, DEPTH_METRICS),
            paragraph("Alignment: " + describe_alignment(
                fields["alignment"], fields["scale_factor"])),
            paragraph(
                "↓ smaller is better, ↑ larger is better; rmse and sq_rel in metres. Means over "
                f"images, {LEVEL:.0%} intervals by {resampled_of(fields['lines']).describe()}. An "
                "interval shows how much a mean depends on the choice of the test drives or "
                "images; it does not hold the variation between seeds of training.", "soft")]


def further_errors(fields: dict) -> list[str]:
    """Return the table of the other errors."""
    names = [name for name in fields["metrics"] if name not in DEPTH_METRICS]
    return [heading("Further errors"), error_table(fields, names),
            paragraph("_0_20 is at true distances of 0 to 20 m. docs/evaluation.md defines each "
                      "error.", "soft")]


def error_table(fields: dict, names: Sequence[str]) -> str:
    """Return a table of these errors with their intervals."""
    rows = []
    for name in names:
        mean, low, high, images = Interval(**fields["metrics"][name])
        arrow = "↑" if name.startswith(HIGHER_IS_BETTER) else "↓"
        fewer = "" if images == len(fields["lines"]) else counted(images, "image")
        rows.append([f"{name} {arrow}", number(mean), f"{number(low)} to {number(high)}", fewer])
    return table(rows, "numbers", ["error", "mean", "interval", ""])


def number(value: float | None, decimals: int = 4) -> str:
    """Return a number as text."""
    return UNKNOWN if value is None else f"{value:.{decimals}f}"


def figure(title: str, path: Path) -> list[str]:
    """Return a section with a picture, which the page holds; no section if the file is missing."""
    picture = cv2.imread(str(path)) if path.is_file() else None
    if picture is None:
        return []
    webp = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1]
    data = base64.b64encode(webp.tobytes()).decode()
    height, width = picture.shape[:2]
    shown = min(width / READABLE, WIDEST)  # on a phone, the picture scrolls
    return [heading(title), f'<div class="wide"><img alt="{escape(title)}" width="{width}" '
            f'height="{height}" style="width: {shown:.0f}rem" '
            f'src="data:image/webp;base64,{data}"></div>']


def robustness(fields: dict, folder: Path, name: str) -> list[str]:
    """Return the section of errors under corruptions; none where they were not measured."""
    path = folder / ROBUSTNESS.format(name)
    if not path.is_file():
        return []
    try:
        found = read_robustness(path)
        if changed := differing(network_of(fields), network_of(found)):
            raise DataError(f"{path} differs in {', '.join(changed)}")
    except DataError as error:
        return [heading("Corruptions"), paragraph(f"Left out: {error}")]
    return [*figure("Corruptions", folder / SHEET.format(name)),
            *figure("Error by severity of the corruption", folder / PLOT.format(name)),
            heading("Errors under corruptions"), *corruption_table(found)]


def corruption_table(found: dict) -> list[str]:
    """Return the table of a robustness file, and what its numbers are."""
    scores, corrupted = found.get("scores", {}), found["corrupted"]
    severities = sorted(set().union(*corrupted.values()))
    rates = [rate for rate in ("ce", "rr") if rate in scores]
    rows = [[name, *(number(errors.get(severity, {}).get("dee"), 3) for severity in severities),
             *(number(scores[rate].get(name), 2) for rate in rates)]
            for name, errors in corrupted.items()]
    head = ["DEE at severity", *severities, *map(str.upper, rates)]
    words = (f"DEE = (abs_rel - a1 + 1) / 2, and {number(found['clean']['dee'], 3)} without "
             "corruption. ")
    if scores:
        means = ", ".join(f"m{rate.upper()} {number(scores['m' + rate], 2)}" for rate in rates)
        words += (f"In percent: {means}, over {len(scores['corruptions'])} of {len(CORRUPTIONS)} "
                  f"corruptions and {len(scores['severities'])} of {len(SEVERITIES)} severities. "
                  f"Baseline: {scores['baseline'] or UNKNOWN}.")
    return [f'<div class="wide">{table(rows, "numbers", head)}</div>', paragraph(words, "soft")]


def origin(fields: dict) -> list[str]:
    """Return where the numbers come from: data, weights, intervals, and the command."""
    truth, lists = fields["ground_truth"], fields["lists"]
    training = lists["training"] or [{"split": "unknown", "sha256": UNKNOWN}]
    rows = [["ground truth", f"{truth['kind']}, {truth['pixels']}; {truth['source']}"],
            ["test list", "{split}, SHA-256 {sha256}".format(**lists["test"])],
            *(["training list", "{split}, SHA-256 {sha256}".format(**each)] for each in training),
            *([name, f"SHA-256 {digest}"]
              for name, digest in fields["weights"]["sha256"].items()),
            ["schema", f"{fields['schema']}, of the results file that this page shows"]]
    return [heading("Origin"), table(rows, "origin"),
            paragraph("This command repeats the evaluation; other flags have their defaults:"),
            f"<pre>{escape(command_line(fields['flags']))}</pre>"]


def command_line(flags: dict) -> str:
    """Return the command that repeats an evaluation, with the flags that differ from defaults."""
    parser = MonodepthOptions(DEPTH).parser
    words = ["python", "evaluate_depth.py"]
    for name, value in flags.items():
        # results are those of one weights folder, also after --eval_all
        if value != parser.get_default(name) and name != "eval_all":
            values = value if isinstance(value, list) else [] if value is True else [value]
            words += [f"--{name}", *map(str, values)]
    return shlex.join(words)


def heading(text: str) -> str:
    """Return the heading of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, classes: str = "") -> str:
    """Return a paragraph."""
    return f'<p class="{classes}">{escape(text)}</p>'


def table(rows: list[list[str]], classes: str, head: list[str] | None = None) -> str:
    """Return a table of texts."""
    def line(cells: list[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    lines = [line(head, "th")] if head else []
    lines += [line(row, "td") for row in rows]
    return "\n".join([f'<table class="{classes}">', *lines, "</table>"])
