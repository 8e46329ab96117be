"""Can the connectome say when to stop, without a validation set? On few labelled samples, with controls.

A stopping rule that reads only the training run may learn from all labelled samples; patience on a
validation loss has to hold some back. After the sister paper of CG-ALR (Wu, He & Songdechakraiwut, arXiv
2508.06817; we knew its abstract, the rules are our own) training stops when the series of distances between
the connectomes of consecutive epochs has settled: its moving average has fallen to a fraction of its peak, or
it has fallen and then levelled out. The controls ask whether the connectome is needed for that: the same
rules on the relative update norm and on the training loss, a threshold on the training loss, a number of
epochs fixed beforehand, and validation patience followed by a second training on all samples.

Whoever has no validation set cannot tune a rule either: so each family has one setting for all tasks, the one
with the smallest error on tuning seeds, relative to training to the end, over the first two tasks. All other
tasks and the reporting seeds are held out. Pairs share split, initial parameters and noisy labels.

In the order in which things were done: the first form failed on the digits; the second was added after a look
at curves of tuning seeds of all five digits tasks; then, with rules and settings fixed, the three tasks on
other data were run for the first time. Trust those, and Fashion-MNIST, which came last: a tenth of its
training images and the group's network, optimizer and units (behind LeakyReLU), as far as they are known.

    python -m benchmarks.early_stopping [--data FOLDER] [--quick] [--json FILE]
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table
from sklearn import datasets

from benchmarks import arguments, estimates
from cgalr_jax import stopping
from cgalr_jax.topology import compute_barcode, frobenius_distance, functional_connectome, top_distance
from examples import datasets as image_data


class Size(NamedTuple):
    """How large a task is.

    Attributes:
        widths: of the hidden layers.
        batch: samples a step.
        labelled: samples with a label; the rest is what the error is of.
        held_back: of these, what patience on a validation loss does not train on.
        epochs: at most.
        seeds: what is reported.
        leaky: whether units are LeakyReLU's and measured behind it (the group's code), or ReLU's before it.
    """

    widths: tuple[int, ...]
    batch: int
    labelled: int
    held_back: int
    epochs: int
    seeds: range
    leaky: bool = False


class Task(NamedTuple):
    """Data, the share of labels that are random, the optimizer."""

    data: str
    noise: float
    optimizer: str
    size: Size


SMALL = Size((64, 64), 16, 180, 36, epochs=150, seeds=range(100, 140))
GROUP = Size((256, 128), 50, 6000, 1200, epochs=60, seeds=range(100, 108), leaky=True)
TASKS = {
    "digits": Task("digits", 0.0, "adam", SMALL),
    "digits, 20 % noise": Task("digits", 0.2, "adam", SMALL),
    "digits, 40 % noise": Task("digits", 0.4, "adam", SMALL),
    "digits, SGD": Task("digits", 0.0, "sgd", SMALL),
    "digits, 20 % noise, SGD": Task("digits", 0.2, "sgd", SMALL),
    "cancer, 20 % noise": Task("cancer", 0.2, "adam", SMALL),
    "clusters": Task("clusters", 0.0, "adam", SMALL),
    "clusters, 20 % noise": Task("clusters", 0.2, "adam", SMALL),
}
IMAGES = {  # with --data
    "Fashion-MNIST": Task("fashion-mnist", 0.0, "the group's", GROUP),
    "Fashion-MNIST, 20 % noise": Task("fashion-mnist", 0.2, "the group's", GROUP),
}
TUNED_ON = tuple(TASKS)[:2]
MEANS = {"held-out digits, mean": tuple(TASKS)[2:5], "other data, mean": tuple(TASKS)[5:]}
OPTIMIZERS = {
    "adam": optax.adam(1e-3),
    "sgd": optax.sgd(0.02, momentum=0.9),
    "the group's": optax.sgd(0.01, momentum=0.9),
}
TOP, VALIDATION, FIXED = "connectome (TOP)", "validation patience", "fixed number of epochs"
MEASURED = {
    TOP: "top",
    "connectome (deaths)": "deaths",
    "connectome (Frobenius)": "frobenius",
    "update norm": "update",
    "training loss": "train",
}


DATA = {  # features f[N, D], labels i[N]
    "digits": lambda: datasets.load_digits(return_X_y=True),
    "cancer": lambda: preprocessed(datasets.load_breast_cancer(return_X_y=True)),
    "clusters": lambda: datasets.make_classification(
        1800, n_features=30, n_informative=8, n_classes=4, random_state=0
    ),
}


def load(name, folder=None):
    """Inputs f32[N, D], each feature centred and all of unit variance, and labels i32[N]."""
    x, y = DATA[name]() if name in DATA else fashion(folder)
    return jnp.asarray((x - x.mean(0)) / x.std(), jnp.float32), jnp.asarray(y)


def preprocessed(data):
    """Features of unit variance each: their units differ."""
    x, y = data
    return x / x.std(0), y


def fashion(folder):
    """The first 12,000 training images, flat: half of them labelled, half to try on."""
    held = image_data.fashion_mnist(folder)
    return held.x[:12000].reshape(12000, -1), held.y[:12000]


def init(key, widths):
    return [
        {"w": jax.random.normal(k, (n, m)) * jnp.sqrt(2 / n), "b": jnp.zeros(m)}
        for k, (n, m) in zip(jax.random.split(key, len(widths) - 1), itertools.pairwise(widths), strict=True)
    ]


def forward(params, x, leaky):
    """Returns logits [N, C] and the units of the hidden layers, side by side [N, P]."""
    hidden = []
    for layer in params[:-1]:
        before = x @ layer["w"] + layer["b"]
        x = jax.nn.leaky_relu(before) if leaky else jax.nn.relu(before)
        hidden.append(x if leaky else before)
    return x @ params[-1]["w"] + params[-1]["b"], jnp.concatenate(hidden, axis=1)


@functools.partial(jax.jit, static_argnames=("classes", "trained", "task"))
def run(seeds, x, y, classes, trained, task):
    """All seeds at once: {curve: f32[S, epochs]}."""
    return jax.vmap(lambda seed: run_seed(seed, x, y, classes, trained, task))(seeds)


def run_seed(seed, x, y, classes, trained, task):
    """Trains on the first `trained` of the labelled samples; returns {curve: f32[epochs]}."""
    _, noise, optimizer, size = task
    labelled, forwarded = size.labelled, functools.partial(forward, leaky=size.leaky)

    def loss_fn(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(forwarded(params, x)[0], y).mean()

    key = jax.random.key(seed)
    split, noisy, labels, start, shuffle = jax.random.split(key, 5)
    order = jax.random.permutation(split, x.shape[0])
    seen, unseen = order[:labelled], order[labelled:]
    random_labels = jax.random.randint(labels, (labelled,), 0, classes)
    y_seen = jnp.where(jax.random.uniform(noisy, (labelled,)) < noise, random_labels, y[seen])
    x_train, y_train = x[seen[:trained]], y_seen[:trained]
    x_held, y_held = x[seen[-size.held_back :]], y_seen[-size.held_back :]
    params = init(start, (x.shape[1], *size.widths, classes))
    tx = OPTIMIZERS[optimizer]

    def connectome_of(params):
        return functional_connectome(forwarded(params, x_train)[1])

    def step(carry, rows):
        params, state = carry
        grads = jax.grad(loss_fn)(params, x_train[rows], y_train[rows])
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry, key):
        params, state, before = carry
        batches = trained // size.batch
        rows = jax.random.permutation(key, trained)[: batches * size.batch].reshape(batches, size.batch)
        (new, state), _ = jax.lax.scan(step, (params, state), rows)
        after = connectome_of(new)
        was, became = compute_barcode(before), compute_barcode(after)
        curves = {
            "top": top_distance(was.births, became.births),
            "deaths": top_distance(was.deaths, became.deaths),
            "frobenius": frobenius_distance(before, after),
            "update": optax.tree.norm(optax.tree.sub(new, params)) / optax.tree.norm(params),
            "train": loss_fn(new, x_train, y_train),
            "held back": loss_fn(new, x_held, y_held),
            "error": jnp.mean(jnp.argmax(forwarded(new, x[unseen])[0], axis=1) != y[unseen]),
        }
        return (new, state, after), curves

    carry = (params, tx.init(params), connectome_of(params))
    return jax.lax.scan(epoch, carry, jax.random.split(shuffle, size.epochs))[1]


def first(condition):
    """The first epoch (from 1) at which a rule says stop, else the last: i[S] from bool[S, T]."""
    return np.where(condition.any(1), condition.argmax(1) + 1, condition.shape[1])


def moving_average(series, window):
    """The mean of the last `window` epochs, or of as many as there are: f[S, T]."""
    total = np.cumsum(np.pad(series, ((0, 0), (1, 0))), axis=1)
    epochs = np.arange(1, total.shape[1])
    return (total[:, 1:] - total[:, np.maximum(epochs - window, 0)]) / np.minimum(epochs, window)


def settled(distances, window, fraction):
    """Whether the moving average has fallen to a fraction of its peak so far: bool[S, T]."""
    mean = moving_average(distances, window)
    return mean <= fraction * np.maximum.accumulate(mean, axis=1)


def patience(losses, wait):
    """Epochs used and the epoch kept: the best one so far, after `wait` epochs without a better one."""
    best = np.minimum.accumulate(losses, axis=1)
    improved = np.concatenate([np.ones((len(losses), 1), bool), losses[:, 1:] < best[:, :-1]], axis=1)
    last = np.maximum.accumulate(np.where(improved, np.arange(losses.shape[1]), 0), axis=1)
    used = first(np.arange(losses.shape[1]) - last >= wait)
    return used, last[np.arange(len(losses)), used - 1] + 1


def outcomes(whole, part):
    """{family: {setting: (epochs used f[S], error f[S])}}; `part` held samples back, `whole` did not."""
    seeds, epochs = whole["error"].shape
    rows = np.arange(seeds)

    def stop(used):
        return used, whole["error"][rows, used - 1]

    again = f"{VALIDATION}, then all"
    found = {VALIDATION: {}, again: {}}
    for wait in (3, 5, 10, 20, 40):
        used, kept = patience(part["held back"], wait)
        found[VALIDATION][f"{wait} epochs"] = used, part["error"][rows, kept - 1]
        found[again][f"{wait} epochs"] = used + kept, whole["error"][rows, kept - 1]
    for family, curve in MEASURED.items():
        found[family] = {
            f"{window} epochs, below {fraction:g} of the peak": stop(
                first(settled(whole[curve], window, fraction))
            )
            for window in (3, 5, 10)
            for fraction in (0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)
        } | {
            f"{window} epochs, level within {tolerance:g}": stop(
                first(stopping.levelled(whole[curve], window=window, tolerance=tolerance))
            )
            for window in (5, 10)
            for tolerance in (0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05)
        }
    found["training loss"] |= {
        f"below {level:g}": stop(first(whole["train"] < level))
        for level in (1, 0.5, 0.3, 0.1, 0.03, 0.01, 0.003)
    }
    budgets = (3, 5, 10, 15, 20, 30, 50, 75, 100)
    found[FIXED] = {f"{e}": stop(np.full(seeds, min(e, epochs))) for e in budgets}
    found[FIXED] |= {"to the end": stop(np.full(seeds, epochs))}
    return found


def choose(tuning):
    """Each family's setting of the smallest error, relative to training to the end; of equals the fastest."""

    def cost(family, setting):
        errors = [found[family][setting][1].mean() / found[FIXED]["to the end"][1].mean() for found in tuning]
        return np.mean(errors), np.mean([found[family][setting][0] for found in tuning])

    return {family: min(found, key=lambda s, f=family: cost(f, s)) for family, found in tuning[0].items()}


def report(chosen, reporting):
    """One flat record for each rule and task, and for each rule and mean over held-out tasks."""
    records = []
    means = {name: tasks for name, tasks in MEANS.items() if set(tasks) <= set(reporting)}
    for task, members in ({task: (task,) for task in reporting} | means).items():
        founds = [reporting[member] for member in members]
        for rule, setting in chosen.items():
            mine = [found[rule][setting] for found in founds]
            record = {"task": task, "rule": rule, "setting": setting, "seeds": len(mine[0][1])}
            record |= {
                name: float(np.mean([m[k] for m in mine])) for k, name in enumerate(("epochs", "error"))
            }
            for name, (a, b) in (
                ("error_vs_validation", (rule, VALIDATION)),
                ("TOP_error_vs_this", (TOP, rule)),
            ):
                pairs = [(found[a][chosen[a]][1], found[b][chosen[b]][1]) for found in founds]
                red = estimates.mean_red(pairs)
                record |= {name: red.value, f"{name}_low": float(red.low), f"{name}_high": float(red.high)}
            records.append(record)
    return records


def show(records, title):
    def interval(record, name):
        return str(estimates.Estimate(*(record[name + end] for end in ("", "_low", "_high"))))

    table = Table(title=title)
    for column in ("task", "rule", "setting", "epochs", "error", "vs validation, %", "TOP vs this, %"):
        table.add_column(column, justify="left" if column in ("task", "rule", "setting") else "right")
    for task, group in itertools.groupby(records, key=lambda record: record["task"]):
        for number, r in enumerate(group):
            numbers = f"{r['epochs']:.0f}", f"{r['error']:.1%}"
            intervals = interval(r, "error_vs_validation"), interval(r, "TOP_error_vs_this")
            table.add_row("" if number else task, r["rule"], r["setting"], *numbers, *intervals)
        table.add_section()
    Console(width=170).print(table)


def main(given=None):
    parser = arguments.parser(
        "benchmarks.early_stopping",
        __doc__,
        quick="few tasks, seeds and epochs: to see that it runs",
        records="for each task and rule",
    )
    arguments.add_data(parser, "where Fashion-MNIST lies; without it, small data")
    options = parser.parse_args(given)
    if options.quick:
        arguments.need_no_data(parser, options, "--quick is of small data only")
    tasks, tuning = TASKS | (IMAGES if options.data else {}), range(20)
    if options.quick:
        short = SMALL._replace(epochs=12, seeds=range(100, 102))
        tasks, tuning = {name: TASKS[name]._replace(size=short) for name in TUNED_ON}, range(2)
    with arguments.reading_data(parser):
        data = {task.data: load(task.data, options.data) for task in tasks.values()}

    def outcomes_of(task, seeds):
        x, y = data[task.data]
        classes, labelled = int(y.max()) + 1, task.size.labelled
        trained = labelled, labelled - task.size.held_back
        curves = [run(jnp.asarray(seeds), x, y, classes, samples, task) for samples in trained]
        return outcomes(*jax.tree.map(np.asarray, curves))

    chosen = choose([outcomes_of(tasks[name], tuning) for name in TUNED_ON])
    records = report(chosen, {name: outcomes_of(task, task.size.seeds) for name, task in tasks.items()})
    show(records, "95 % intervals; settings chosen on other seeds of the first two tasks")
    arguments.write(options.json, records)


if __name__ == "__main__":
    main()
