"""The table: test errors at the base rate that validation chose, RED with paired intervals."""

from benchmarks import estimates, pages
from benchmarks.paper import tasks
from benchmarks.paper.gates import GATES, is_below_the_top
from benchmarks.study.lines import Found, Line
from benchmarks.study.quantities import best_rate

PAGE = pages.RESULTS / "paper.md"
REFERENCE = "SGD cosine"
OURS = "paper deaths"

CLAIMS = {  # of the abstract, and what it is tried against
    "better than a constant rate of SGD": "SGD constant",
    "than a step schedule": "SGD step",
    "than an exponential one": "SGD exponential",
    "than a cosine": "SGD cosine",
    "than a cosine with a warm-up": "SGD warm-up cosine",
    "better than recent methods: DoG, averaged": "DoG, averaged",
    "Prodigy, constant": "Prodigy",
    "Prodigy, cosine": "Prodigy cosine",
    "level with scheduled Adam: AdamW with a cosine": "AdamW cosine",
    "control: its envelope with no gate": "envelope, no gate",
    "control: a gate that hears noise": "gate on noise",
    "control: a gate that hears the inverse": "gate reversed",
    "another distance: births and deaths": "paper barcode",
    "another distance: WD": "paper WD",
    "ours: the default": "our default",
    "ours: the update norm, no connectome": "update norm",
}


def text(found: Found) -> str:
    """What the paper claims, then a table for each task."""
    found = {label: lines for label, lines in found.items() if lines}
    parts = [_claims(found), *(_table(label, lines) for label, lines in found.items())]
    return "\n".join(part for part in parts if part)


def _claims(found: Found) -> str:
    """The paper's preset against each other method on each task, and on how many of them which is better."""
    found = {label: lines for label, lines in found.items() if OURS in lines}
    rows = []
    for claim, name in CLAIMS.items():
        against = {
            label: estimates.red(lines[OURS].chosen.test, lines[name].chosen.test)
            for label, lines in found.items()
            if name in lines
        }
        if not against:
            continue
        better = sum(red.high < 0 for red in against.values())
        worse = sum(red.low > 0 for red in against.values())
        cells = [str(against[label]) if label in against else "not run" for label in found]
        counts = f"{better} better, {worse} worse, {len(against) - better - worse} undecided"
        rows.append([claim, *cells, counts])
    return pages.rows(["claim", *found, "tasks"], rows) + "\n" if rows else ""


def _table(label: str, lines: dict[str, Line]) -> str:
    task, seeds = tasks.TASKS[label], len(next(iter(lines.values())).chosen.test)
    header = ["method", "base rate", f"test {task.unit}", f"RED against {REFERENCE}"]
    header += [f"{OURS} against it", "at the six rates"]
    rows = []
    for name, line in lines.items():
        test = line.chosen.test
        factor, unit = (100, " %") if task.unit == "error" else (1, "")
        value = f"{factor * test.mean():.{2 if unit else 3}f}{unit}"
        each = ", ".join(
            f"{factor * outcome.test.mean():.{1 if unit else 2}f}" for outcome in line.on_grid.outcomes
        )
        against = _red(lines, name, REFERENCE)
        beside = _red(lines, OURS, name)
        rows.append([name, best_rate(line), value, against, beside, each])
    text = f"### {label}, {seeds} paired seeds, {task.epochs} epochs\n\n{pages.rows(header, rows)}\n"
    shares = {name: 1 - is_below_the_top(task, lines[name]).mean() for name in GATES if name in lines}
    if shares:
        at_the_top = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
        text += f"\nShare of the run that a gate sits at the top of its envelope: {at_the_top}.\n"
    return text


def _red(lines: dict[str, Line], first: str, second: str) -> str:
    if first == second or not {first, second} <= set(lines):
        return ""
    return str(estimates.red(lines[first].chosen.test, lines[second].chosen.test))
