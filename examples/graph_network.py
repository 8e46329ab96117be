"""A graph convolutional network on Zachary's karate club (networkx), or on a Planetoid graph in a folder.

Nodes are the samples. One node of each club is labelled; the network has to find out the others.
"""

import argparse

import datasets
import jax.numpy as jnp
import networkx
import numpy as np
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


def karate_club():
    """34 members, two clubs; the instructor (node 0) and the president (node 33) are labelled."""
    graph = networkx.karate_club_graph()
    labels = np.array([graph.nodes[node]["club"] == "Officer" for node in graph], np.int32)
    return datasets.Graph(
        np.eye(len(labels), dtype=np.float32),
        labels,
        np.array(graph.edges, np.int32),
        train=np.array([0, 33]),
        validation=np.array([], np.int64),
        test=np.arange(1, 33),
    )


def normalised_adjacency(edges, nodes):
    """D^-1/2 (A + I) D^-1/2 (Kipf and Welling, 2017), dense."""
    adjacency = np.eye(nodes, dtype=np.float32)
    adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = 1
    degree = adjacency.sum(1)
    return adjacency / np.sqrt(degree[:, None] * degree[None, :])


@nnx.jit
def train_step(model, optimizer, graph, labels, train):
    def loss_fn(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(graph)[train], labels[train]).mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads, probe=capture.nnx_probe(model, graph))
    return loss


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--planetoid", choices=datasets.PLANETOID, help="instead of the karate club")
    parser.add_argument("--folder", help="where the files of --planetoid are, see datasets.py")
    parser.add_argument("--learning-rate", type=float, default=0.01, help="of SGD with momentum 0.9")
    args = parser.parse_args()
    steps = 60 if args.quick else 500
    data = datasets.planetoid(args.folder, args.planetoid) if args.planetoid else karate_club()
    nodes, features = data.features.shape
    graph = data.features, normalised_adjacency(data.edges, nodes)

    model = Gcn(features, 16, int(data.labels.max()) + 1, nnx.Rngs(args.seed))
    example = capture.example(capture.nnx_probe(model, graph), model)
    schedule = optax.cosine_decay_schedule(args.learning_rate, steps)
    tx = cgalr_jax.cgalr(schedule, example, every=5)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for step in range(steps):
        loss = train_step(model, optimizer, graph, data.labels, data.train)
        if step % max(steps // 5, 1) == 0 or step == steps - 1:
            found = cgalr_jax.metrics(optimizer)
            print(f"step {step:4d}  loss {float(loss):.4f}  scale {float(found['cgalr/scale']):.3g}")
    wrong = jnp.argmax(model(graph), -1)[data.test] != data.labels[data.test]
    print(f"wrong: {int(wrong.sum())} of {len(data.test)} unlabelled nodes")


if __name__ == "__main__":
    main()
