"""Handwritten digits, one network, four base learning rates: with and without CG-ALR.

A Flax nnx network is trained on scikit-learn's digits by SGD with momentum under a cosine schedule, from base
rates up to 1000 times apart; two lines differ, the optimizer and its update. The table at the end says what
each rate costs, with the schedule only and with CG-ALR; `--out FILE` draws what the learning rate did, and
why.
"""

import console
import datasets
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import cgalr_jax
from cgalr_jax import capture, plotting, recorder

RATES = {0.003: plotting.BLUE, 0.03: plotting.GREEN, 0.3: plotting.ORANGE, 3.0: plotting.VERMILION}
SHOWN = 0.03  # the rate whose connectome is drawn
BATCH, PROBE = 32, 128


def make_network(seed):
    rngs = nnx.Rngs(seed)
    hidden = [nnx.Linear(64, 64, rngs=rngs), nnx.relu, nnx.Linear(64, 64, rngs=rngs), nnx.relu]
    return nnx.Sequential(lambda x: x.reshape(len(x), -1), *hidden, nnx.Linear(64, 10, rngs=rngs))


def train(rate, with_cgalr, data, seed, steps, tick):
    """Trains once; returns the test error, the connectomes before and after, and the trace."""
    x, y = data.x, data.y
    net = make_network(seed)
    schedule = optax.cosine_decay_schedule(rate, steps)
    tx = optax.sgd(schedule, momentum=0.9)
    if with_cgalr:  # SGD with a momentum of 0.9, too
        tx = cgalr_jax.cgalr(schedule, capture.example(net, x[:PROBE]), steps=steps)
    optimizer = nnx.Optimizer(net, tx, wrt=nnx.Param)

    @nnx.jit
    def step(net, optimizer, x, y, x_probe):
        def loss_fn(net):
            return optax.softmax_cross_entropy_with_integer_labels(net(x), y).mean()

        loss, grads = nnx.value_and_grad(loss_fn)(net)
        optimizer.update(net, grads, probe=capture.nnx_probe(net, x_probe))  # plain SGD ignores the probe
        return loss

    before = connectome_of(net, x[:PROBE])
    trace = recorder.TraceRecorder()
    rng = np.random.default_rng(seed)
    for t in range(steps):
        batch = rng.choice(len(x), BATCH, replace=False)
        loss = step(net, optimizer, x[batch], y[batch], x[:PROBE])
        row = cgalr_jax.metrics(optimizer) if with_cgalr else {"cgalr/learning_rate": schedule(t)}
        trace.record(row, loss=loss)
        tick()
    error = float(jnp.mean(jnp.argmax(net(data.x_test), axis=-1) != data.y_test))
    return error, (before, connectome_of(net, x[:PROBE])), trace.arrays()


def connectome_of(net, x):
    """The connectome of the units of both hidden layers."""
    activations = capture.nnx_probe(net, x)(nnx.state(net, nnx.Param))
    return cgalr_jax.topology.functional_connectome(jnp.concatenate(list(activations.values()), axis=1))


@plt.rc_context({"font.size": 12})  # legible on a telephone, too
def draw(runs, path):
    """Learning rate, motion and loss over the steps; the connectome before and after."""
    mosaic = [["rate", "rate"], ["motion", "loss"], ["before", "after"]]
    figure, axes = plt.subplot_mosaic(mosaic, figsize=(7, 8), height_ratios=[1, 1, 1.3], layout="constrained")
    for (rate, with_cgalr), (_, _, trace) in runs.items():
        steps = np.arange(len(trace["loss"]))
        style = "-" if with_cgalr else ":"
        label = f"base rate {rate:g}" if with_cgalr else None
        axes["rate"].plot(steps, trace["cgalr/learning_rate"], style, color=RATES[rate], label=label)
        if with_cgalr:
            axes["motion"].step(steps, trace["cgalr/motion"], where="post", color=RATES[rate])
        smooth = np.convolve(trace["loss"], np.ones(10) / 10, mode="valid")
        axes["loss"].plot(steps[9:], smooth, style, color=RATES[rate])
    axes["rate"].set(yscale="log", ylabel="learning rate", ylim=(1e-6, 5))
    axes["rate"].set_title("solid: with CG-ALR, dotted: the schedule only", fontsize="medium")
    axes["rate"].legend(ncols=2, fontsize="small", loc="lower center")
    axes["motion"].set(yscale="log", ylabel="motion (in set-points)", xlabel="step")
    axes["motion"].axhline(1, color=plotting.GREY, linewidth=0.8)
    axes["loss"].set(yscale="log", ylabel="loss", xlabel="step")
    for name, matrix in zip(("before", "after"), runs[SHOWN, True][1], strict=True):
        plotting.plot_connectome(axes[name], matrix, layers={"hidden 1": 64, "hidden 2": 64})
        axes[name].set_title(f"{name}, base rate {SHOWN:g}", fontsize="medium")
    figure.draw_without_rendering()  # lets the layout see the colour bars
    figure.savefig(path, dpi=100)


def main(argv=None):
    """Returns the test error of each base rate, with CG-ALR and without, and the rates that were found."""
    parser = console.parser(__doc__, "300 steps instead of 600, and half of the base rates")
    parser.add_argument("--out", type=console.picture, metavar="FILE", help="a picture to write")
    args = parser.parse_args(argv)
    steps = 300 if args.quick else 600
    rates = [SHOWN, max(RATES)] if args.quick else list(RATES)

    data, runs = datasets.digits(args.seed), {}
    with Progress() as progress:
        task = progress.add_task("training", total=2 * len(rates) * steps)
        for rate in rates:
            for with_cgalr in (False, True):
                name = f"base rate {rate:g}, {'with' if with_cgalr else 'without'} CG-ALR"
                progress.update(task, description=name)
                runs[rate, with_cgalr] = train(
                    rate, with_cgalr, data, args.seed, steps, lambda: progress.advance(task)
                )

    plain, ours = ({rate: runs[rate, chosen][0] for rate in rates} for chosen in (False, True))
    found = {rate: rate * float(runs[rate, True][2]["cgalr/anchor"][-1]) for rate in rates}
    table = Table(title=f"test error after {steps} steps")
    for column in ("base rate", "cosine", "cosine + CG-ALR", "rate it found"):
        table.add_column(column, justify="right")
    for rate in rates:
        table.add_row(f"{rate:g}", f"{plain[rate]:.1%}", f"{ours[rate]:.1%}", f"{found[rate]:.3f}")
    Console().print(table)
    if args.out is not None:
        draw(runs, args.out)
        print(f"picture: {args.out}")
    return {"baseline": plain, "error": ours, "found": found}


if __name__ == "__main__":
    main()
