"""The anatomy of a run: a network learns handwritten digits, and one page tells what its connectome did.

With `--out FOLDER` it writes anatomy.png, and anatomy.html, which needs nothing beside itself: what the
connectome looked like, when it reorganised, and what the learning rate did about it. The same schedule
without CG-ALR is the baseline. Takes about 30 seconds.
"""

import base64
import io
import itertools

import console
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn import datasets

import cgalr_jax
from cgalr_jax import capture, plotting, recorder, signals, topology

EVERY, BATCH, PROBE, FRAMES = 10, 32, 256, 6
LAYERS = {"hidden 1": 48, "hidden 2": 32, "logits": 10}
RATE = 0.1  # the schedule's height; the calibration finds its own
STYLE = """body{max-width:46rem;margin:3rem auto;padding:0 1rem;font:1.05rem/1.5 Georgia,serif;color:#222}
h1,h2{font-family:system-ui,sans-serif;line-height:1.2} h2{margin-top:2.5rem}
img{width:100%;background:#fff}
@media (prefers-color-scheme:dark){body{background:#181818;color:#ddd}}"""


def train(seed, steps, with_cgalr=True):
    """Returns the test error, the trace of the run, and {step: connectome}."""
    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    (x, x_test), (y, y_test) = (np.split(z[order], [1200]) for z in (images.astype(np.float32) / 16, labels))
    rngs = nnx.Rngs(seed)
    dense = [nnx.Linear(n, m, rngs=rngs) for n, m in itertools.pairwise([64, *LAYERS.values()])]
    net = nnx.Sequential(dense[0], nnx.relu, dense[1], nnx.relu, dense[2])

    schedule = optax.cosine_decay_schedule(RATE, steps)
    tx = optax.sgd(schedule, momentum=0.9)
    if with_cgalr:
        example = capture.example(capture.nnx_probe(net, x[:PROBE], logits=True), net)
        controller = cgalr_jax.calibrated(schedule, steps=steps)
        behind = cgalr_jax.scale_by_connectome(
            example, every=EVERY, controller=controller, signal=signals.frobenius()
        )
        tx = optax.chain(tx, behind)
    optimizer = nnx.Optimizer(net, tx, wrt=nnx.Param)

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
        return topology.functional_connectome(jnp.concatenate(list(activations.values()), axis=1))

    trace, connectomes, rng = recorder.TraceRecorder(), {}, np.random.default_rng(seed)
    for t in console.steps(steps, "SGD with CG-ALR" if with_cgalr else "SGD"):
        if with_cgalr and t % EVERY == 0:
            connectomes[t] = np.asarray(connectome_of(net, x[:PROBE]))
        batch = rng.choice(len(x), BATCH, replace=False)
        loss = step(net, optimizer, x[batch], y[batch], x[:PROBE])
        if with_cgalr:
            trace.record(cgalr_jax.metrics(optimizer), loss=loss, base=schedule(t))
    connectomes[steps] = np.asarray(connectome_of(net, x[:PROBE]))
    return float(np.mean(np.argmax(net(x_test), axis=-1) != y_test)), trace, connectomes


def story(values, distance):
    """What the learning rate did, in sentences that the trace makes true; distances in set-points."""
    rate = values["base"] * values["cgalr/scale"]
    over = values["cgalr/phase"] > 0
    text = f"It begins at {rate[0]:.2g} and peaks at {rate.max():.2g}, in step {np.argmax(rate) + 1}. "
    fastest = np.nanargmax(distance)
    text += f"The connectome moved fastest around step {fastest + 1}, by {distance[fastest]:.2g} set-points. "
    if not over.any():
        return text + "The calibration was still looking for its level when the run ended."
    row = int(np.argmax(over))
    text += f"The calibration ended in step {row + 1}, at a rate of {rate[row]:.2g}"
    fell = rate[row] > 2 * rate[-1]
    return text + (f"; by the end the schedule had taken it down to {rate[-1]:.2g}." if fell else ".")


def tell(baseline, error, trace, connectomes):
    """The chapters: (title, text, size in inches, how to draw it into a figure)."""
    values, units = trace.arrays(), sum(LAYERS.values())
    moved = [topology.frobenius_distance(*pair) for pair in itertools.pairwise(connectomes.values())]
    path = np.concatenate([[0.0], np.cumsum(moved)])
    shares = np.linspace(0, path[-1], FRAMES)
    frames = {t: connectomes[t] for t in (list(connectomes)[np.argmin(np.abs(path - s))] for s in shares)}
    (first, before), *_, (last, after) = frames.items()
    births = {first: topology.compute_births(before), last: topology.compute_births(after)}
    phase, signal = values["cgalr/phase"], signals.frobenius()
    # How many steps a new distance spans; rows without one are left out.
    spans = np.diff(values["cgalr/read"], prepend=np.nan)
    set_points = signal.set_point_at(np.where(spans > 0, spans, 1).astype(int))
    in_set_points = np.where(spans > 0, values["cgalr/distance"] / set_points, np.nan)
    level = (
        f"had its level by step {np.argmax(phase > 0) + 1}"
        if phase.any()
        else "is still looking for its level"
    )

    def film(figure):
        titles = [f"step {t}" for t in frames]
        plotting.plot_film(
            figure.subplots(1, len(frames)), list(frames.values()), titles=titles, layers=LAYERS
        )

    def run(figure):
        axes = figure.subplots(3, 1, sharex=True)
        trace.plot(axes, base_learning_rate=values["base"], set_point=signal)
        figure.align_ylabels(axes)

    def tree(figure):
        plotting.plot_spanning_tree(figure.subplots(), topology.spanning_tree(after), layers=LAYERS)

    def barcode(figure):
        upper, lower = figure.subplots(2, 1, height_ratios=[3, 2])
        plotting.plot_barcode(upper, topology.compute_barcode(after))
        for (t, born), color in zip(births.items(), (plotting.GREY, plotting.BLUE), strict=True):
            plotting.plot_betti_curve(lower, born, color=color, label=f"step {t}")
        lower.legend(frameon=False, fontsize="small")

    film_text = f"""Correlations of {units} units over {PROBE} images, in the order of the last spanning tree;
        lines part the layers. Between two pictures the connectome has moved equally far."""
    run_text = story(values, in_set_points)
    tree_text = f"""The maximum spanning tree of the last connectome: of all sets of {units - 1} edges that
        connect the units the strongest one. Dark and thick is a high correlation."""
    firmer = np.median(births[last]) > np.median(births[first])
    barcode_text = f"""Cut the edges, the weakest first: half of the components appear beyond
        {np.median(births[last]):.2f}; before training it was {np.median(births[first]):.2f}. So the
        units hold together {"more" if firmer else "less"} firmly than at first."""
    better = "fewer" if error < baseline else "no fewer"
    result_text = f"""{error:.1%} of the test images are misread, {better} than the {baseline:.1%} of the same
        schedule at a rate of {RATE:g} without CG-ALR."""
    return [
        (f"The connectome over {len(trace)} steps", film_text, (7.2, 1.7), film),
        (f"The learning rate {level}", run_text, (7.2, 5.2), run),
        ("What holds it together", tree_text, (7.2, 3.4), tree),
        ("Its topology", barcode_text, (7.2, 4.4), barcode),
        ("The result", result_text, None, None),
    ]


def write_png(chapters, path):
    page = plt.figure(figsize=(9, 10.5), layout="constrained")
    grid = page.add_gridspec(3, 2, height_ratios=[1.1, 1.8, 2.2])
    for (title, _, _, draw), place in zip(
        chapters[:4], (grid[0, :], grid[1:, 0], grid[1, 1], grid[2, 1]), strict=True
    ):
        part = page.add_subfigure(place)
        part.suptitle(title, fontsize="medium", fontweight="bold", x=0.01, ha="left")
        draw(part)
    page.draw_without_rendering()  # the layout settles with the second drawing
    page.savefig(path, dpi=150)


def write_html(chapters, path):
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>Anatomy of a run</title><style>{STYLE}</style>"
    page = f'<!doctype html><html lang="en"><head>{head}</head><body><h1>Anatomy of a run</h1>\n'
    for title, text, size, draw in chapters:
        page += f"<h2>{title}</h2>\n<p>{' '.join(text.split())}</p>\n"
        if draw is not None:
            figure, file = plt.figure(figsize=size, layout="constrained"), io.BytesIO()
            draw(figure)
            figure.draw_without_rendering()
            figure.savefig(file, format="svg")
            image = base64.b64encode(file.getvalue()).decode()
            page += f'<img alt="{title}" src="data:image/svg+xml;base64,{image}">\n'
    path.write_text(page + "</body></html>\n")


def main(argv=None):
    """Returns the test errors with CG-ALR and without, and the page's text."""
    parser = console.parser(__doc__, "400 steps instead of 1000")
    parser.add_argument("--out", type=console.new_folder, metavar="FOLDER", help="where to write the pages")
    args = parser.parse_args(argv)
    plt.rcParams.update({"font.size": 9, "axes.linewidth": 0.6})
    steps = 400 if args.quick else 1000
    baseline, *_ = train(args.seed, steps, with_cgalr=False)
    error, trace, connectomes = train(args.seed, steps)
    chapters = tell(baseline, error, trace, connectomes)
    for title, text, *_ in chapters:
        print(f"{title}. {' '.join(text.split())}")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        for write, name in ((write_png, "anatomy.png"), (write_html, "anatomy.html")):
            write(chapters, args.out / name)
            print(args.out / name)
    return {"error": error, "baseline": baseline, "trace": trace.arrays(), "story": chapters[1][1]}


if __name__ == "__main__":
    main()
