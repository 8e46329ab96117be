"""Can the connectome say when to stop, without a validation set? On 180 labelled samples, with controls.

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
other data were run for the first time. Trust those.

    python -m benchmarks.early_stopping [--quick] [--json FILE]
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table
from sklearn import datasets

from benchmarks import arguments, estimates
from cgalr_jax import stopping
from cgalr_jax.topology import compute_births, frobenius_distance, functional_connectome, top_distance

WIDTHS, BATCH, LABELLED, HELD_BACK = (64, 64), 16, 180, 36
TASKS = {  # data, share of random labels, optimizer
    "digits": ("digits", 0.0, "adam"),
    "digits, 20 % noise": ("digits", 0.2, "adam"),
    "digits, 40 % noise": ("digits", 0.4, "adam"),
    "digits, SGD": ("digits", 0.0, "sgd"),
    "digits, 20 % noise, SGD": ("digits", 0.2, "sgd"),
    "cancer, 20 % noise": ("cancer", 0.2, "adam"),
    "clusters": ("clusters", 0.0, "adam"),
    "clusters, 20 % noise": ("clusters", 0.2, "adam"),
}
TUNED_ON = tuple(TASKS)[:2]
MEANS = {"held-out digits, mean": tuple(TASKS)[2:5], "other data, mean": tuple(TASKS)[5:]}
OPTIMIZERS = {"adam": optax.adam(1e-3), "sgd": optax.sgd(0.02, momentum=0.9)}
TOP, VALIDATION, FIXED = "connectome (TOP)", "validation patience", "fixed number of epochs"
MEASURED = {
    TOP: "top",
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


def load(name):
    """Inputs f32[N, D], each feature centred and all of unit variance, and labels i32[N]."""
    x, y = DATA[name]()
    return jnp.asarray((x - x.mean(0)) / x.std(), jnp.float32), jnp.asarray(y)


def preprocessed(data):
    """Features of unit variance each: their units differ."""
    x, y = data
    return x / x.std(0), y


def init(key, inputs, classes):
    widths = [inputs, *WIDTHS, classes]
    return [
        {"w": jax.random.normal(k, (n, m)) * jnp.sqrt(2 / n), "b": jnp.zeros(m)}
        for k, (n, m) in zip(jax.random.split(key, len(widths) - 1), itertools.pairwise(widths), strict=True)
    ]


def forward(params, x):
    """Returns logits [N, 10] and the pre-activations of the hidden layers, side by side [N, P]."""
    hidden = []
    for layer in params[:-1]:
        x = x @ layer["w"] + layer["b"]
        hidden.append(x)
        x = jax.nn.relu(x)
    return x @ params[-1]["w"] + params[-1]["b"], jnp.concatenate(hidden, axis=1)


def loss_fn(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(forward(params, x)[0], y).mean()


@functools.partial(jax.jit, static_argnames=("classes", "trained", "epochs", "optimizer"))
def run(seeds, x, y, classes, trained, epochs, noise, optimizer):
    """All seeds at once: {curve: f32[S, epochs]}."""
    return jax.vmap(lambda seed: run_seed(seed, x, y, classes, trained, epochs, noise, optimizer))(seeds)


def run_seed(seed, x, y, classes, trained, epochs, noise, optimizer):
    """Trains on the first `trained` of the labelled samples; returns {curve: f32[epochs]}."""
    key = jax.random.key(seed)
    split, noisy, labels, start, shuffle = jax.random.split(key, 5)
    order = jax.random.permutation(split, x.shape[0])
    seen, unseen = order[:LABELLED], order[LABELLED:]
    random_labels = jax.random.randint(labels, (LABELLED,), 0, classes)
    y_seen = jnp.where(jax.random.uniform(noisy, (LABELLED,)) < noise, random_labels, y[seen])
    x_train, y_train = x[seen[:trained]], y_seen[:trained]
    x_held, y_held = x[seen[LABELLED - HELD_BACK :]], y_seen[LABELLED - HELD_BACK :]
    params = init(start, x.shape[1], classes)
    tx = OPTIMIZERS[optimizer]

    def connectome_of(params):
        return functional_connectome(forward(params, x_train)[1])

    def step(carry, rows):
        params, state = carry
        grads = jax.grad(loss_fn)(params, x_train[rows], y_train[rows])
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    def epoch(carry, key):
        params, state, before = carry
        batches = trained // BATCH
        rows = jax.random.permutation(key, trained)[: batches * BATCH].reshape(batches, BATCH)
        (new, state), _ = jax.lax.scan(step, (params, state), rows)
        after = connectome_of(new)
        curves = {
            "top": top_distance(compute_births(before), compute_births(after)),
            "frobenius": frobenius_distance(before, after),
            "update": optax.tree.norm(optax.tree.sub(new, params)) / optax.tree.norm(params),
            "train": loss_fn(new, x_train, y_train),
            "held back": loss_fn(new, x_held, y_held),
            "error": jnp.mean(jnp.argmax(forward(new, x[unseen])[0], axis=1) != y[unseen]),
        }
        return (new, state, after), curves

    carry = (params, tx.init(params), connectome_of(params))
    return jax.lax.scan(epoch, carry, jax.random.split(shuffle, epochs))[1]


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
    budgets = [*(e for e in (3, 5, 10, 15, 20, 30, 50, 75, 100) if e < epochs), epochs]
    found[FIXED] = {f"{e}": stop(np.full(seeds, e)) for e in budgets}
    return found


def choose(tuning):
    """Each family's setting of the smallest error, relative to training to the end; of equals the fastest."""

    def cost(family, setting):
        errors = [
            found[family][setting][1].mean() / list(found[FIXED].values())[-1][1].mean() for found in tuning
        ]
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


def main():
    options = arguments.parser(
        "benchmarks.early_stopping",
        __doc__,
        quick="few tasks, seeds and epochs: to see that it runs",
        records="for each task and rule",
    ).parse_args()
    tasks, tuning, reporting, epochs = tuple(TASKS), range(20), range(100, 140), 150
    if options.quick:
        tasks, tuning, reporting, epochs = TUNED_ON, range(2), range(100, 102), 12

    def outcomes_of(seeds, task):
        data, noise, optimizer = TASKS[task]
        x, y = load(data)
        classes = int(y.max()) + 1
        sizes = (LABELLED, LABELLED - HELD_BACK)
        curves = [run(jnp.asarray(seeds), x, y, classes, size, epochs, noise, optimizer) for size in sizes]
        return outcomes(*jax.tree.map(np.asarray, curves))

    chosen = choose([outcomes_of(tuning, task) for task in TUNED_ON])
    records = report(chosen, {task: outcomes_of(reporting, task) for task in tasks})
    show(
        records,
        f"{len(reporting)} seeds, {LABELLED} labelled samples, at most {epochs} epochs, 95 % intervals",
    )
    arguments.write(options.json, records)


if __name__ == "__main__":
    main()
