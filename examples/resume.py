"""Checkpoints with Orbax: a run that is killed at a random step and resumed ends where the unbroken run ends.

Without arguments the whole demonstration runs: one run without interruption, one that kills itself (SIGKILL:
nothing is flushed, nothing is cleaned up), the resumed rest, and a comparison of the parameters and of the
whole optimizer state, bit for bit. `--run FOLDER` is one such run. Plain SGD at the same base rate is the
baseline.
"""

import hashlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import console
import datasets
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import linen

import cgalr_jax
from cgalr_jax import capture

NETWORK = linen.Sequential([linen.Dense(32), linen.relu, linen.Dense(32), linen.relu, linen.Dense(10)])
PROBE = capture.linen_probe(NETWORK)
BATCH = 32
RATE = 1e-2  # ten times too small on purpose


def digits(seed):
    """Images as rows: those to train on and their labels, those to test on and theirs."""
    data = datasets.digits(seed)
    return data.x.reshape(-1, 64), data.y, data.x_test.reshape(-1, 64), data.y_test


def first_state(x, seed, steps, with_cgalr):
    """The state before the first step; the same schedule with CG-ALR and without."""
    params = NETWORK.init(jax.random.key(seed), x[:1])["params"]
    schedule = optax.cosine_decay_schedule(RATE, steps)
    tx = optax.sgd(schedule, momentum=0.9)
    if with_cgalr:  # SGD with a momentum of 0.9, too
        example = capture.example(PROBE, params, x[:BATCH])
        tx = cgalr_jax.cgalr(schedule, example, samples=x[:BATCH], steps=steps)
    return capture.TrainState.create(apply_fn=NETWORK.apply, params=params, tx=tx)


@jax.jit
def train_step(state, x, y):
    def loss_fn(params):
        logits = state.apply_fn({"params": params}, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    # Plain SGD ignores the probe.
    return state.apply_gradients(grads=jax.grad(loss_fn)(state.params), probe=PROBE, samples=x)


def batch_at(t, seed, x, y):
    """The batch of a step, as a function of the step: a resumed run sees the same."""
    chosen = np.random.default_rng((seed, t)).choice(len(x), BATCH, replace=False)
    return x[chosen], y[chosen]


def wrong(params, x, y):
    """The share of samples that are misclassified."""
    return float(np.mean(np.argmax(NETWORK.apply({"params": params}, x), -1) != y))


def run(folder, steps, seed, kill_at):
    """Trains from the last checkpoint in the folder, or from the start; returns a digest of all arrays."""
    x, y, *test = digits(seed)
    state = first_state(x, seed, steps, with_cgalr=True)
    options = ocp.CheckpointManagerOptions(max_to_keep=2, save_interval_steps=5)
    # A run of other settings is another run.
    folder = pathlib.Path(folder).resolve() / f"{steps}_steps_of_seed_{seed}"
    handler = ocp.StandardCheckpointHandler()  # with it the manager can tell what is in a step
    with ocp.CheckpointManager(folder, item_handlers=handler, options=options) as manager:
        arrays = {"params": state.params, "opt_state": state.opt_state}
        start = 0
        if (last := manager.latest_step()) is not None:
            # A run with other layers or numbers of units is refused here, by name.
            cgalr_jax.check_checkpoint(manager.item_metadata(last), state)
            # Always restore into what `tx.init` gives: names, shapes and dtypes come from there.
            arrays = manager.restore(last, args=ocp.args.StandardRestore(arrays))
            start = last + 1
            print(f"resumed after step {last}")
        state = state.replace(step=start, **arrays)
        for t in (start + t for t in console.steps(steps - start, "CG-ALR with checkpoints")):
            state = train_step(state, *batch_at(t, seed, x, y))
            arrays = {"params": state.params, "opt_state": state.opt_state}
            manager.save(t, args=ocp.args.StandardSave(arrays))
            if t == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    content = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(arrays))
    scale = float(cgalr_jax.metrics(state)["cgalr/scale"])
    digest = hashlib.sha256(content).hexdigest()
    return f"test error {wrong(state.params, *test):.4f} scale {scale:.6g} digest {digest}"


def plain(steps, seed):
    """The test error of the same schedule without CG-ALR, and without checkpoints."""
    x, y, *test = digits(seed)
    state = first_state(x, seed, steps, with_cgalr=False)
    for t in console.steps(steps, "plain SGD"):
        state = train_step(state, *batch_at(t, seed, x, y))
    return wrong(state.params, *test)


def start(name, folder, steps, seed, *arguments):
    """A run in a process of its own, whose progress is shown; returns its exit status and its lines."""
    command = [sys.executable, __file__, "--run", folder, "--steps", str(steps), "--seed", str(seed)]
    lines = []
    with subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            lines.append(line.rstrip())
            print(f"[{name}] {lines[-1]}", flush=True)
    return process.returncode, lines


def demonstrate(steps, seed):
    """The unbroken, the killed and the resumed run."""
    baseline = plain(steps, seed)
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as broken:
        status, unbroken = start("unbroken", whole, steps, seed)
        kill_at = int(np.random.default_rng(seed).integers(steps // 2, steps - 1))
        killed, _ = start("killed", broken, steps, seed, "--kill-at", kill_at)
        print(f"killed at step {kill_at}: exit status {killed}")
        _, resumed = start("resumed", broken, steps, seed)
    if status or killed != -signal.SIGKILL or not any(line.startswith("resumed") for line in resumed):
        raise SystemExit("The first run must end, the second be killed, and the third resume it.")
    if unbroken[-1] != resumed[-1]:
        raise SystemExit("Both must end with the same bits.")
    error = float(re.search(r"test error ([\d.]+)", unbroken[-1])[1])
    print(f"the same, bit for bit; test error {error:.1%}, plain SGD {baseline:.1%}")
    return {"error": error, "baseline": baseline}


def main(argv=None):
    """Returns the test errors with CG-ALR and without, or nothing with --run."""
    parser = console.parser(__doc__, "150 steps instead of 300")
    parser.add_argument("--steps", type=console.whole, help="of the run, at least 10")
    parser.add_argument(
        "--run", type=console.new_folder, metavar="FOLDER", help="train once, checkpoints here"
    )
    parser.add_argument("--kill-at", type=console.whole, metavar="STEP", help="with --run: end it by SIGKILL")
    args = parser.parse_args(argv)
    steps = (150 if args.quick else 300) if args.steps is None else args.steps
    if steps < 10:
        parser.error(f"--steps must be at least 10, got {steps}")
    if args.kill_at is not None and (args.run is None or args.kill_at >= steps):
        parser.error(f"--kill-at needs --run FOLDER, and a step below {steps}; got {args.kill_at}")
    if args.run is None:
        return demonstrate(steps, args.seed)
    print(run(args.run, steps, args.seed, args.kill_at))
    return {}


if __name__ == "__main__":
    main()
