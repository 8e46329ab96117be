"""A small nnx transformer that learns to write, character by character: Python, or Shakespeare's plays.

Adam with CG-ALR; attention and MLP layers are measured, tokens count as samples. The same schedule
without CG-ALR is the baseline, at a base rate that is too small.
"""

import console
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
def loss_of(model, text):
    losses = optax.softmax_cross_entropy_with_integer_labels(model(text[:, :-1]), text[:, 1:])
    return losses.mean()


@nnx.jit
def train_step(model, optimizer, text):
    grads = nnx.grad(loss_of)(model, text)
    optimizer.update(model, grads, probe=capture.nnx_probe(model), samples=text[:8, :-1])


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


def train(text, size, steps, seed, rate, with_cgalr):
    """Trains once on the first nine tenths; returns the model and the loss per character of the rest."""
    width, length = size
    model = Transformer(width, 2, length, nnx.Rngs(seed))
    schedule = optax.cosine_decay_schedule(rate, steps)
    rng, border = np.random.default_rng(seed), len(text) * 9 // 10

    def batch(count, low, high):
        starts = rng.integers(low, high - length - 1, count)
        return text[starts[:, None] + np.arange(length + 1)]

    tx = optax.adam(schedule)
    if with_cgalr:
        samples = batch(16, 0, border)[:8, :-1]
        example = capture.example(capture.nnx_probe(model), model, samples)
        tx = cgalr_jax.cgalr(schedule, example, optimizer=optax.adam, samples=samples, steps=steps)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    for _ in console.steps(steps, "Adam with CG-ALR" if with_cgalr else "Adam"):
        train_step(model, optimizer, batch(16, 0, border))
    rng = np.random.default_rng(0)
    return model, float(loss_of(model, batch(256, border, len(text))))


def main(argv=None):
    """Returns the losses per character of the text that was held back, with CG-ALR and without."""
    parser = console.parser(__doc__, "a narrow model, and 200 steps instead of 1000")
    parser.add_argument("--text", choices=["python", "shakespeare"], default="python")
    parser.add_argument(
        "--data", type=console.folder, metavar="FOLDER", help="of Shakespeare, see datasets.py"
    )
    parser.add_argument("--learning-rate", type=console.positive, default=1e-5, help="of Adam (default 1e-5)")
    args = parser.parse_args(argv)
    size, steps = ((32, 32), 200) if args.quick else ((64, 64), 1000)
    if args.text == "python":
        console.need_no_data(parser, args.data, "--text shakespeare")
        text = datasets.python_source(1_000_000)
    else:
        text = console.load(parser, datasets.tiny_shakespeare, args.data)
    text = text.astype(np.int32)
    _, plain = train(text, size, steps, args.seed, args.learning_rate, with_cgalr=False)
    model, loss = train(text, size, steps, args.seed, args.learning_rate, with_cgalr=True)
    print(f"loss per held-out character at a base rate of {args.learning_rate:g}: ", end="")
    print(f"Adam {plain:.3f}, with CG-ALR {loss:.3f}")
    prompt = np.frombuffer(b"def " if args.text == "python" else b"KING", np.uint8).astype(np.int32)
    written = np.asarray(write(model, prompt, jax.random.key(args.seed)))[0]
    print("it writes:", repr(bytes(written.astype(np.uint8)).decode("ascii")))
    return {"loss": loss, "baseline": plain}


if __name__ == "__main__":
    main()
