"""Tables in Markdown, flat records for JSON, all from the files on disk: nothing here is typed by hand."""

import pathlib

import numpy as np

from benchmarks import arguments, arrays, estimates, pages
from benchmarks.training import figures, methods, protocols, runner, seconds, store, tasks
from benchmarks.training.protocols import OURS

CONTROL = "update norm"
PAGE = pages.RESULTS / "training.md"


def write(folder: pathlib.Path, plan: protocols.Plan) -> str:
    """Writes report.md and the plots into the folder; returns the text."""
    table = protocols.read(folder, plan)
    if not table.records:
        raise SystemExit(f"Nothing to report: there are no results of {protocols.REFERENCE} in {folder}.")
    sections = [
        _targets(table),
        _against_baselines(table),
        _among_ours(table),
        _by_task(table),
        _time_to_target(table),
        _seconds(folder, table),
        arrays.made_by(
            store.path_of(folder, label, name) for label in table.records for name in table.records[label]
        ),
    ]
    text = "\n\n".join(section for section in sections if section)
    (folder / "report.md").write_text(text + "\n")
    figures.draw(folder, table)
    return text


def publish(folder: pathlib.Path, plan: protocols.Plan, text: str) -> None:
    """Puts the tables, two plots and a summary into docs/results."""
    plots = [folder / plot for plot in ("rates.png", "traces.png")]
    pages.publish(PAGE, f"{scope(plan)}\n\n{text}", plots, summary(folder, plan))


def scope(plan: protocols.Plan) -> str:
    """One sentence: how many tasks and methods there are."""
    variants = sum(bool(tasks.catalogue()[label].variant) for label in plan)
    return (
        f"{len(plan) - variants} tasks, {variants} variants of them, {len(methods.BASELINES)} baselines, "
        f"{len(methods.CONNECTOME)} methods of ours, {len(methods.CONTROLS)} controls."
    )


def records(folder: pathlib.Path, plan: protocols.Plan) -> list[arguments.Record]:
    """One flat record for each run."""
    table = protocols.read(folder, plan)
    return [
        {
            "task": tasks.catalogue()[label].name,
            "variant": tasks.catalogue()[label].variant,
            "method": name,
            "base_rate": round(float(record.rates[column]), 6),
            "seed": int(record.seeds[row]),
            "error": round(float(score), 5),
            "steps_to_target": None if np.isnan(steps) else int(steps),
            "seconds": round(float(record.seconds), 4),
            "at_chance": bool(tasks.catalogue()[label].at_chance(score)),
        }
        for label, held in table.records.items()
        for name, record in held.items()
        for ((row, column), score), steps in zip(
            np.ndenumerate(record.score), table.steps_to_target(label, name).flat, strict=True
        )
    ]


def summary(folder: pathlib.Path, plan: protocols.Plan) -> list[arguments.Record]:
    """One flat record for each task, method and rate, mean and deviation over seeds: few enough to commit."""
    table = protocols.read(folder, plan)
    return [
        {
            "task": label,
            "method": name,
            "base_rate": round(float(rate), 6),
            "seeds": len(record.seeds),
            "error": round(float(record.score[:, column].mean()), 5),
            "deviation": round(float(record.score[:, column].std()), 5),
            "at_chance": round(float(tasks.catalogue()[label].at_chance(record.score[:, column]).mean()), 3),
        }
        for label, held in table.records.items()
        for name, record in held.items()
        for column, rate in enumerate(record.rates)
    ]


def _red(pairs: list) -> str:
    return str(estimates.mean_red(pairs)) if pairs else ""


def _extremes(pairs: list) -> str:
    """Median and worst task."""
    values = [100 * estimates.red(*pair).value for pair in pairs]
    return f"{np.median(values):+.1f} / {max(values):+.1f}" if pairs else ""


def _against_baselines(table: protocols.Table) -> str:
    rows = []
    for name in methods.BASELINES:
        if not table.tasks_with(OURS, name):
            continue
        ratios = table.ratios(name)
        rows.append(
            [
                name,
                _red(table.protocol_a(OURS, name)),
                _extremes(table.protocol_a(OURS, name)),
                _red(table.against_one_rate(OURS, name)),
                _red(table.protocol_b(OURS, name)),
                f"{np.mean(ratios):.2f} / {max(ratios):.2f}",
                f"{100 * table.at_chance(name):.0f} %",
            ]
        )
    if not rows:
        return ""
    ratios = table.ratios(OURS)
    own = f"{OURS} itself: {np.mean(ratios):.2f} / {max(ratios):.2f} and {100 * table.at_chance(OURS):.1f} %."
    seeds = len(next(iter(table.records.values()))[protocols.REFERENCE].seeds)
    note = (
        f"RED of {OURS} in %, negative is better, mean over {len(table.tasks_with(OURS))} tasks, "
        f"{seeds} seeds, 95 % paired bootstrap over seeds. Ours is never tuned: its error is the mean "
        "over a 100x range of base rates. A: the baseline at its oracle rate, found on these very "
        "seeds; one rate: the baseline at the one rate that suits all tasks best; B: the baseline's "
        "mean over its 100x range. Worst/best: of a method's rates in that range, mean / largest over"
        " tasks. At chance: share of its runs that end within 5 % of a constant answer's score. " + own
    )
    header = [
        "baseline",
        "A",
        "A, median / worst task",
        "one rate",
        "B",
        "worst/best",
        "at chance",
    ]
    return pages.table("Against the baselines", note, header, rows)


def _among_ours(table: protocols.Table) -> str:
    rows = []
    for name in methods.CONNECTOME | methods.CONTROLS:
        if not table.tasks_with(name):
            continue
        reference = protocols.reference_of(name)
        control = f"{CONTROL} {protocols.base_of(name) or ''}".rstrip()
        pairs = table.protocol_a(name, reference)
        ratios = table.ratios(name)
        rows.append(
            [
                name,
                _red(pairs),
                _extremes(pairs),
                _red(table.protocol_b(name, reference)),
                "" if name == control else _red(table.protocol_b(name, control)),
                f"{np.mean(ratios):.2f} / {max(ratios):.2f}",
                f"{100 * table.at_chance(name):.1f} %",
            ]
        )
    note = (
        "The signals and the controls, all untuned. A and B: against SGD cosine (AdamW or Muon cosine for "
        "those on AdamW or Muon), as above. The last comparison is with `calibrated` on the update norm, "
        "no connectome at all."
    )
    header = [
        "method",
        "A",
        "A, median / worst task",
        "B",
        "against the update norm",
        "worst/best",
        "at chance",
    ]
    return pages.table("Signals and controls", note, header, rows)


def _by_task(table: protocols.Table) -> str:
    names = [
        name
        for name in (
            protocols.REFERENCE,
            "AdamW cosine",
            "Prodigy cosine",
            "DoG",
            OURS,
            "CG-ALR Frobenius",
            CONTROL,
        )
        if table.tasks_with(name)
    ]
    if OURS not in names:
        return ""
    rows = []
    for label in table.tasks_with(*names):
        best = table.records[label][protocols.REFERENCE]
        rate = best.rates[estimates.oracle(best.score)]
        cells = [
            f"{table.tuned(label, name).mean():.4f} / {table.untuned(label, name).mean():.4f}"
            for name in names
        ]
        interval = str(estimates.red(table.untuned(label, OURS), table.tuned(label, protocols.REFERENCE)))
        rows.append([label, f"{rate:g}", *cells, interval])
    note = (
        "Test error (transformer: nats per character) at the oracle rate / mean over the 100x range; "
        "the last column is protocol A against SGD cosine."
    )
    header = ["task", "best rate of SGD cosine", *names, f"RED of {OURS}"]
    return pages.table("Task by task", note, header, rows)


def _share_to_target(table: protocols.Table, label: str, name: str, tuned: bool) -> tuple[float, float]:
    """Median share of a run until the target, infinite where half of them miss it; share that reach it."""
    steps = table.steps_to_target(label, name)
    columns = [estimates.oracle(table.records[label][name].score)] if tuned else methods.METHODS[name].judged
    shares = steps[:, columns] / tasks.catalogue()[label].steps
    return float(np.median(np.nan_to_num(shares, nan=np.inf))), float(np.mean(~np.isnan(shares)))


def _reached(table: protocols.Table, label: str, name: str, tuned: bool) -> str:
    median, reached = _share_to_target(table, label, name, tuned)
    return f"{median:.2f} ({100 * reached:.0f} %)" if np.isfinite(median) else f"- ({100 * reached:.0f} %)"


def _seconds(folder: pathlib.Path, table: protocols.Table) -> str:
    found = seconds.load(folder / "seconds.json")
    rows = []
    for label, each in found.items():
        if label not in table.records:
            continue
        row = [label]
        for name in (name for name in seconds.METHODS if name in each):
            relative = np.median(np.divide(each[name], each[protocols.REFERENCE]))
            milliseconds = 1000 * np.median(each[name])
            tuned = name == protocols.REFERENCE
            median = (
                _share_to_target(table, label, name, tuned)[0] if name in table.records[label] else np.inf
            )
            row.append(
                f"{relative:.2f} / " + (f"{median * milliseconds:.0f}" if np.isfinite(median) else "-")
            )
        rows.append(row)
    note = (
        f"Processor time of a run relative to {protocols.REFERENCE}, median of {seconds.ROUNDS} quotients / "
        "milliseconds of it until the target, median. One network at a time; SGD cosine at its oracle rate, "
        "the others over their 100x range. The networks are tiny, so that what a measurement costs is seen "
        "at its worst."
    )
    return pages.table("Seconds", note, ["task", *seconds.METHODS], rows)


def _time_to_target(table: protocols.Table) -> str:
    shown = [
        (name, tuned)
        for name, tuned in (
            (protocols.REFERENCE, True),
            (protocols.REFERENCE, False),
            ("AdamW cosine", True),
            ("AdamW cosine", False),
            ("Prodigy cosine", False),
            (OURS, False),
            ("CG-ALR Frobenius", False),
            (CONTROL, False),
        )
        if all(name in held for held in table.records.values())
    ]
    rows = [
        [label, f"{table.target(label):.4f}", *(_reached(table, label, name, tuned) for name, tuned in shown)]
        for label in table.records
    ]
    note = (
        "Share of the run's length after which the score that oracle-tuned SGD cosine ends with is "
        "first reached: median over seeds (and rates), with the share of runs that reach it; a dash "
        f"unless more than half do. Scored on at most {runner.CURVE_SAMPLES} test samples, where the tables "
        "above take all of them. Nothing was tuned on the variants, in brackets."
    )
    header = [
        "task",
        "target",
        *(f"{name}, {'oracle rate' if tuned else '100x range'}" for name, tuned in shown),
    ]
    return pages.table("Time to target", note, header, rows)


def _targets(table: protocols.Table) -> str:
    """The targets set beforehand, beside what came out."""
    rows = []

    def add(text: str, pairs: list, limit: float) -> None:
        if pairs:
            found = estimates.mean_red(pairs)
            verdict = "yes" if found.value <= limit else "no"
            rows.append([text, f"<= {100 * limit:+.0f} %", str(found), verdict])

    for baseline, limit in (("SGD cosine", -0.30), ("AdamW cosine", -0.20), ("Prodigy", -0.08)):
        if table.tasks_with(OURS, baseline):
            add(f"B against {baseline}", table.protocol_b(OURS, baseline), limit)
    for baseline, limit in (("SGD cosine", 0.0), ("DoG", -0.05), ("DoWG", -0.05)):
        if table.tasks_with(OURS, baseline):
            add(f"A against {baseline}", table.protocol_a(OURS, baseline), limit)
    if table.tasks_with(OURS):
        worst = max(estimates.red(*pair).value for pair in table.protocol_a(OURS, protocols.REFERENCE))
        rows.append(["A, worst task", "<= +5 %", f"{100 * worst:+.1f}", "yes" if worst <= 0.05 else "no"])
        ratios = table.ratios(OURS)
        rows.append(
            [
                "worst/best over 100x",
                "<= 1.05",
                f"{np.mean(ratios):.2f}",
                "yes" if np.mean(ratios) <= 1.05 else "no",
            ]
        )
        share = table.at_chance(OURS)
        rows.append(["runs at chance", "0", f"{100 * share:.2f} %", "yes" if share == 0 else "no"])
    if table.tasks_with(OURS, CONTROL):
        found = estimates.mean_red(table.protocol_b(OURS, CONTROL))
        rows.append(["better than the update norm", "below 0", str(found), "yes" if found.high < 0 else "no"])
    if table.tasks_with(OURS, "CG-ALR hybrid, no horizon"):
        found = estimates.mean_red(table.protocol_b("CG-ALR hybrid, no horizon", OURS))
        rows.append(
            [
                "unknown horizon against the known one",
                "<= +2 %",
                str(found),
                "yes" if found.value <= 0.02 else "no",
            ]
        )
    note = (
        "Set before the reporting seeds were touched; RED in % unless said otherwise, mean over tasks. A: "
        "ours untuned against a baseline at its best rate; B: against the baseline's mean over its 100x "
        "range."
    )
    return pages.table("Targets", note, ["target", "wanted", "found", "reached"], rows)
