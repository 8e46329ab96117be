"""The anatomy of a run: a network learns handwritten digits, and one page tells what its connectome did.

With `--out FOLDER` it writes anatomy.html, the report of the recorder with the connectome along the run, and
anatomy.png: what holds the last connectome together. The same schedule without CG-ALR is the baseline. Takes
about 30 seconds.
"""

import itertools

import console
import datasets
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

import cgalr_jax
from cgalr_jax import capture, plotting, recorder, signals, topology

EVERY, BATCH, PROBE = 10, 32, 256
LAYERS = {"hidden 1": 48, "hidden 2": 32, "logits": 10}
RATE = 0.1  # the schedule's height; the calibration finds its own
SIGNAL = signals.frobenius()


def train(data, seed, steps, with_cgalr):
    """Returns the test error, the trace of the run, and {step: connectome}."""
    x, x_test = (images.reshape(len(images), -1) for images in (data.x, data.x_test))
    rngs = nnx.Rngs(seed)
    dense = [nnx.Linear(n, m, rngs=rngs) for n, m in itertools.pairwise([64, *LAYERS.values()])]
    net = nnx.Sequential(dense[0], nnx.relu, dense[1], nnx.relu, dense[2])
    schedule = optax.cosine_decay_schedule(RATE, steps)
    tx = optax.sgd(schedule, momentum=0.9)
    if with_cgalr:
        example = capture.example(capture.nnx_probe(net, x[:PROBE], logits=True), net)
        tx = cgalr_jax.cgalr(schedule, example, steps=steps, every=EVERY, signal=SIGNAL)
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
        loss = step(net, optimizer, x[batch], data.y[batch], x[:PROBE])
        if with_cgalr:
            trace.record(cgalr_jax.metrics(optimizer), loss=loss)
    connectomes[steps] = np.asarray(connectome_of(net, x[:PROBE]))
    return float(np.mean(np.argmax(net(x_test), axis=-1) != data.y_test)), trace, connectomes


def draw(path, connectomes):
    """The maximum spanning tree of the last connectome, its barcode, and how its births have grown."""
    (first, before), *_, (last, after) = connectomes.items()
    figure = plt.figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplot_mosaic([["tree", "barcode"], ["tree", "births"]], height_ratios=[3, 2])
    plotting.plot_spanning_tree(axes["tree"], topology.spanning_tree(after), layers=LAYERS)
    plotting.plot_barcode(axes["barcode"], topology.compute_barcode(after))
    for t, connectome, color in ((first, before, plotting.GREY), (last, after, plotting.BLUE)):
        births = topology.compute_births(connectome)
        plotting.plot_betti_curve(axes["births"], births, color=color, label=f"step {t}")
    axes["births"].legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=150)


def main(argv=None):
    """Returns the test errors with CG-ALR and without."""
    parser = console.parser(__doc__, "400 steps instead of 1000")
    parser.add_argument("--out", type=console.new_folder, metavar="FOLDER", help="where to write both")
    args = parser.parse_args(argv)
    steps, data = 400 if args.quick else 1000, datasets.digits(args.seed)
    baseline, *_ = train(data, args.seed, steps, with_cgalr=False)
    error, trace, connectomes = train(data, args.seed, steps, with_cgalr=True)
    print(f"test images that are misread: SGD {baseline:.1%}, with CG-ALR {error:.1%}; {trace.summary()}")
    if args.out is not None:
        settings = {"seed": args.seed, "base learning rate": RATE, "test error": f"{error:.1%}"}
        page, picture = args.out / "anatomy.html", args.out / "anatomy.png"
        trace.report(page, settings=settings, connectomes=connectomes, layers=LAYERS)
        draw(picture, connectomes)
        print(page, picture, sep="\n")
    return {"error": error, "baseline": baseline}


if __name__ == "__main__":
    main()
