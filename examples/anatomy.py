"""The anatomy of a run: a network learns handwritten digits, and one page tells what its connectome did.

Writes anatomy.png, and anatomy.html, which needs nothing beside itself: what the connectome looked like, when
it reorganised, and what the learning rate did about it. Takes about 20 seconds.
"""

import argparse
import base64
import io
import itertools
import pathlib

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from rich.progress import Progress
from sklearn import datasets

import cgalr_jax
from cgalr_jax import capture, plotting, recorder, signals, topology

EVERY, BATCH, PROBE, FRAMES = 10, 32, 256, 6
LAYERS = {"hidden 1": 48, "hidden 2": 32, "logits": 10}
STYLE = """body{max-width:46rem;margin:3rem auto;padding:0 1rem;font:1.05rem/1.5 Georgia,serif;color:#222}
h1,h2{font-family:system-ui,sans-serif;line-height:1.2} h2{margin-top:2.5rem} img{width:100%}"""


def train(seed, steps):
    """Returns the test error, the trace of the run, and {step: connectome}."""
    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    (x, x_test), (y, y_test) = (np.split(z[order], [1200]) for z in (images.astype(np.float32) / 16, labels))
    rngs = nnx.Rngs(seed)
    dense = [nnx.Linear(n, m, rngs=rngs) for n, m in itertools.pairwise([64, *LAYERS.values()])]
    net = nnx.Sequential(dense[0], nnx.relu, dense[1], nnx.relu, dense[2])

    schedule = optax.cosine_decay_schedule(1.0, steps)
    cgalr = cgalr_jax.scale_by_connectome(
        capture.example(capture.nnx_probe(net, x[:PROBE], logits=True), net),
        every=EVERY,
        controller=cgalr_jax.calibrated(schedule),
        signal=signals.frobenius(),
    )
    optimizer = nnx.Optimizer(net, optax.chain(optax.sgd(schedule, momentum=0.9), cgalr), wrt=nnx.Param)

    @nnx.jit
    def step(net, optimizer, x, y, x_probe):
        def loss_fn(net):
            return optax.softmax_cross_entropy_with_integer_labels(net(x), y).mean()

        loss, grads = nnx.value_and_grad(loss_fn)(net)
        optimizer.update(net, grads, probe=capture.nnx_probe(net, x_probe, logits=True))
        return loss

    @nnx.jit
    def connectome_of(net, x):
        activations = capture.nnx_probe(net, x, logits=True)(nnx.state(net, nnx.Param))
        return cgalr_jax.topology.functional_connectome(jnp.concatenate(list(activations.values()), axis=1))

    trace, connectomes, rng = recorder.TraceRecorder(), {}, np.random.default_rng(seed)
    with Progress() as progress:
        task = progress.add_task("training", total=steps)
        for t in range(steps):
            if t % EVERY == 0:
                connectomes[t] = np.asarray(connectome_of(net, x[:PROBE]))
            batch = rng.choice(len(x), BATCH, replace=False)
            loss = step(net, optimizer, x[batch], y[batch], x[:PROBE])
            trace.record(cgalr_jax.metrics(optimizer), loss=loss, base=schedule(t))
            progress.update(task, advance=1, description=trace.summary("loss", "cgalr/scale"))
    connectomes[steps] = np.asarray(connectome_of(net, x[:PROBE]))
    return float(np.mean(np.argmax(net(x_test), axis=-1) != y_test)), trace, connectomes


def tell(error, trace, connectomes):
    """The chapters: (title, text, size in inches, how to draw it into a figure)."""
    values, units = trace.arrays(), sum(LAYERS.values())
    moved = [topology.frobenius_distance(*pair) for pair in itertools.pairwise(connectomes.values())]
    path = np.concatenate([[0.0], np.cumsum(moved)])
    shares = np.linspace(0, path[-1], FRAMES)
    frames = {t: connectomes[t] for t in (list(connectomes)[np.argmin(np.abs(path - s))] for s in shares)}
    (first, before), *_, (last, after) = frames.items()
    births = {first: cgalr_jax.topology.compute_births(before), last: cgalr_jax.topology.compute_births(after)}
    rate, phase = values["base"] * values["cgalr/scale"], values["cgalr/phase"]
    level = (
        f"had its level by step {np.argmax(phase > 0)}" if phase.any() else "is still looking for its level"
    )

    def film(figure):
        titles = [f"step {t}" for t in frames]
        plotting.plot_film(
            figure.subplots(1, len(frames)), list(frames.values()), titles=titles, layers=LAYERS
        )

    def run(figure):
        axes, set_point = figure.subplots(4, 1, sharex=True), signals.frobenius().set_point
        trace.plot(axes, base_learning_rate=values["base"], set_point=set_point)
        figure.align_ylabels(axes)

    def tree(figure):
        plotting.plot_spanning_tree(figure.subplots(), cgalr_jax.topology.spanning_tree(after), layers=LAYERS)

    def barcode(figure):
        upper, lower = figure.subplots(2, 1, height_ratios=[3, 2])
        plotting.plot_barcode(upper, cgalr_jax.topology.compute_barcode(after))
        for (t, born), color in zip(births.items(), (plotting.GREY, plotting.BLUE), strict=True):
            plotting.plot_betti_curve(lower, born, color=color, label=f"step {t}")
        lower.legend(frameon=False, fontsize="small")

    film_text = f"""Correlations of {units} units over {PROBE} images, in the order of the last spanning tree;
        lines part the layers. Between two pictures the connectome has moved equally far."""
    run_text = f"""It begins at {rate[0]:.2g}, rises until the connectome moves at its set-point, and then
        follows the cosine down; here its peak was {rate.max():.2g}. The connectome reorganised fastest around
        step {np.nanargmax(values["cgalr/distance"])}. In the end {error:.1%} of the test images are
        misread."""
    tree_text = f"""The maximum spanning tree of the last connectome: of all sets of {units - 1} edges that
        connect the units the strongest one. Dark and thick is a high correlation."""
    barcode_text = f"""Cut the edges, the weakest first: half of the components appear beyond
        {np.median(births[last]):.2f}; before training it was {np.median(births[first]):.2f}. A curve further
        right is a network whose units hold together more firmly."""
    return [
        (f"The connectome over {len(trace)} steps", film_text, (7.2, 1.7), film),
        (f"The learning rate {level}", run_text, (7.2, 5.2), run),
        ("What holds it together", tree_text, (7.2, 3.4), tree),
        ("Its topology", barcode_text, (7.2, 4.4), barcode),
    ]


def write_png(chapters, path):
    page = plt.figure(figsize=(9, 10.5), layout="constrained")
    grid = page.add_gridspec(3, 2, height_ratios=[1.1, 1.8, 2.2])
    for (title, _, _, draw), place in zip(
        chapters, (grid[0, :], grid[1:, 0], grid[1, 1], grid[2, 1]), strict=True
    ):
        part = page.add_subfigure(place)
        part.suptitle(title, fontsize="medium", fontweight="bold", x=0.01, ha="left")
        draw(part)
    page.draw_without_rendering()  # the layout settles with the second drawing
    page.savefig(path, dpi=150)


def write_html(chapters, path):
    head = f'<meta charset="utf-8"><title>Anatomy of a run</title><style>{STYLE}</style>'
    page = f'<!doctype html><html lang="en"><head>{head}</head><body><h1>Anatomy of a run</h1>\n'
    for title, text, size, draw in chapters:
        figure, file = plt.figure(figsize=size, layout="constrained"), io.BytesIO()
        draw(figure)
        figure.draw_without_rendering()
        figure.savefig(file, format="svg")
        image = base64.b64encode(file.getvalue()).decode()
        page += f"<h2>{title}</h2>\n<p>{' '.join(text.split())}</p>\n"
        page += f'<img alt="{title}" src="data:image/svg+xml;base64,{image}">\n'
    path.write_text(page + "</body></html>\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of split, parameters and batches (default 0)")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path(), help="folder of the files (default .)"
    )
    parser.add_argument("--quick", action="store_true", help="120 steps instead of 1000: to see that it runs")
    arguments = parser.parse_args()
    plt.rcParams.update({"font.size": 9, "axes.linewidth": 0.6})
    chapters = tell(*train(arguments.seed, 120 if arguments.quick else 1000))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for write, name in ((write_png, "anatomy.png"), (write_html, "anatomy.html")):
        write(chapters, arguments.out / name)
        print(arguments.out / name)


if __name__ == "__main__":
    main()
