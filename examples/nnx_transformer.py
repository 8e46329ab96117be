"""A small nnx transformer that learns to write Python, character by character, from the standard library.

Adam with CG-ALR behind it; attention and MLP layers are measured, tokens count as samples.
"""

import argparse

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import cgalr_jax
from cgalr_jax import capture

VOCABULARY = 128  # ASCII


class Block(nnx.Module):
    """Attention and MLP, each behind a LayerNorm and beside a residual."""

    def __init__(self, width, rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, width, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x, mask):
        """[N, T, width] -> [N, T, width]."""
        x = x + self.attention(self.norm1(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class Transformer(nnx.Module):
    """Blocks between an embedding and logits."""

    def __init__(self, width, blocks, length, rngs):
        self.tokens = nnx.Embed(VOCABULARY, width, rngs=rngs)
        self.positions = nnx.Embed(length, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, rngs) for _ in range(blocks)])
        self.norm, self.out = nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, VOCABULARY, rngs=rngs)

    def __call__(self, tokens):
        """Tokens i32[N, T] -> logits [N, T, VOCABULARY]."""
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        mask = nnx.make_causal_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.out(self.norm(x))


@nnx.jit
def train_step(model, optimizer, text):
    def loss_fn(model):
        losses = optax.softmax_cross_entropy_with_integer_labels(model(text[:, :-1]), text[:, 1:])
        return losses.mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads, probe=capture.nnx_probe(model), samples=text[:8, :-1])
    return loss


@nnx.jit
def write(model, prompt, key):
    """Continues a prompt, one character at a time, to the model's whole length."""

    def step(tokens, t):
        logits = model(tokens)[:, t - 1]
        chosen = jax.random.categorical(jax.random.fold_in(key, t), logits / 0.8)
        return tokens.at[:, t].set(chosen), None

    length = model.positions.num_embeddings
    tokens = jnp.zeros((1, length), jnp.int32).at[0, : len(prompt)].set(prompt)
    return jax.lax.scan(step, tokens, jnp.arange(len(prompt), length))[0]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of Adam")
    args = parser.parse_args()
    width, length, steps = (32, 32, 40) if args.quick else (64, 64, 1000)
    text = datasets.python_source(100_000 if args.quick else 1_000_000).astype(np.int32)

    model = Transformer(width, 2, length, nnx.Rngs(args.seed))
    schedule = optax.cosine_decay_schedule(args.learning_rate, steps)
    rng = np.random.default_rng(args.seed)

    def batch():
        starts = rng.integers(0, len(text) - length - 1, 16)
        return text[starts[:, None] + np.arange(length + 1)]

    samples = batch()[:8, :-1]
    example = capture.example(capture.nnx_probe(model), model, samples)
    print("measured:", {name: layer.shape for name, layer in example.items()})
    controller = cgalr_jax.calibrated(schedule)
    tx = optax.chain(
        optax.adam(schedule),
        cgalr_jax.scale_by_connectome(example, samples=samples, every=5, controller=controller),
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for step in range(steps):
        loss = train_step(model, optimizer, batch())
        if step % max(steps // 5, 1) == 0 or step == steps - 1:
            found = cgalr_jax.metrics(optimizer)
            print(f"step {step:4d}  loss {float(loss):.4f}  scale {float(found['cgalr/scale']):.3g}")
    prompt = np.frombuffer(b"def ", np.uint8).astype(np.int32)
    written = np.asarray(write(model, prompt, jax.random.key(args.seed)))[0]
    print(repr(bytes(written.astype(np.uint8)).decode("ascii")))


if __name__ == "__main__":
    main()
