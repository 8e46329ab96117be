"""A graph convolutional network on Zachary's karate club (networkx), or on a Planetoid graph of yours.

Nodes are the samples. One node of each club is labelled; the network has to find out the others. The same
schedule without CG-ALR is the baseline, at a base rate that is far too small.
"""

import console
import datasets
import jax.numpy as jnp
import optax
from flax import nnx

import cgalr_jax
from cgalr_jax import capture


class Gcn(nnx.Module):
    """Two graph convolutions."""

    def __init__(self, features, width, classes, rngs):
        self.first = nnx.Linear(features, width, use_bias=False, rngs=rngs)
        self.second = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, graph):
        """Features [nodes, F] and adjacency [nodes, nodes] -> logits [nodes, classes]."""
        x, adjacency = graph
        x = nnx.tanh(adjacency @ self.first(x))
        x = nnx.tanh(adjacency @ self.second(x))
        return self.out(x)


@nnx.jit
def train_step(model, optimizer, graph, labels, train):
    def loss_fn(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(graph)[train], labels[train]).mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads, probe=capture.nnx_probe(model, graph))
    return loss


def train(data, graph, steps, seed, rate, with_cgalr):
    """Trains once; returns how many of the test nodes are wrong."""
    model = Gcn(data.features.shape[1], 16, int(data.labels.max()) + 1, nnx.Rngs(seed))
    schedule = optax.cosine_decay_schedule(rate, steps)
    tx = optax.sgd(schedule, momentum=0.9)
    if with_cgalr:
        example = capture.example(capture.nnx_probe(model, graph), model)
        tx = cgalr_jax.cgalr(schedule, example, steps=steps)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for _ in console.steps(steps, "SGD with CG-ALR" if with_cgalr else "SGD"):
        train_step(model, optimizer, graph, data.labels, data.train)
    return int(jnp.sum(jnp.argmax(model(graph), -1)[data.test] != data.labels[data.test]))


def main(argv=None):
    """Returns the shares of test nodes that are wrong, with CG-ALR and without."""
    parser = console.parser(__doc__, "200 steps instead of 500")
    parser.add_argument("--graph", choices=["karate", *datasets.PLANETOID], default="karate")
    parser.add_argument(
        "--data", type=console.folder, metavar="FOLDER", help="the Planetoid files, see datasets.py"
    )
    parser.add_argument("--learning-rate", type=console.positive, default=1e-3, help="of SGD (default 0.001)")
    args = parser.parse_args(argv)
    if args.graph == "karate":
        console.need_no_data(parser, args.data, "--graph cora or citeseer")
        data = datasets.karate_club()
    else:
        data = console.load(parser, datasets.planetoid, args.data, args.graph)
    graph = data.features, datasets.normalised_adjacency(data.adjacency())
    steps, count = 200 if args.quick else 500, len(data.test)
    plain, wrong = (
        train(data, graph, steps, args.seed, args.learning_rate, chosen) for chosen in (False, True)
    )
    print(f"wrong of {count} unlabelled nodes, at a base rate of {args.learning_rate:g}: ", end="")
    print(f"SGD {plain} ({plain / count:.0%}), with CG-ALR {wrong} ({wrong / count:.0%})")
    return {"error": wrong / count, "baseline": plain / count}


if __name__ == "__main__":
    main()
