"""Read lists of experiments, and check their lines before the first line is run."""
from __future__ import annotations

import re
import shlex
from pathlib import Path

from options import MonodepthOptions
from runtime.errors import DataError
from runtime.files import readlines

COMMAND = re.compile(r"python (train|evaluate_depth|evaluate_pose)\.py (.+)")
FOLDER = re.compile(r'\s"?\$OUT"?/(\w+)_\$SEED\s*$')
FORM = 'expected `python train.py ... && python evaluate_depth.py ... "$OUT"/NAME_$SEED`'


def read_experiments(path: str | Path) -> dict[str, str]:
    """Return the lines of a list by the NAME of their folder, once all of them are checked."""
    experiments = {}
    for number, line in enumerate(readlines(path), 1):
        if line.strip() and not line.startswith("#"):
            name = check_line(line, f"{path}, line {number}")
            if name in experiments:
                raise DataError(f"{path}, line {number}: an earlier line has the folder {name}, "
                                "too; rename one")
            experiments[name] = line
    if not experiments:
        raise DataError(f"{path} has no experiments; {FORM}")
    return experiments


def check_line(line: str, where: str) -> str:
    """Check each command of a line with the option parser of its script; return the line's NAME."""
    if unknown := set(re.findall(r"\$\w+", line)) - {"$DATA", "$OUT", "$SEED"}:
        raise DataError(f"{where}: found {' '.join(unknown)}; lines know $DATA, $OUT and $SEED")
    for command in line.split(" && "):
        try:
            script, flags = COMMAND.fullmatch(command).groups()
            name, words = FOLDER.search(line)[1], shlex.split(flags.replace("$SEED", "1"))
        except (AttributeError, TypeError, ValueError):  # no match, or a quotation without an end
            raise DataError(f"{where}: found {command!r}; {FORM}") from None
        options = MonodepthOptions(script)
        options.parser.prog = f"{where}: {script}.py"  # error messages of the parser begin with it
        options.parse(words)
    return name
