"""Checkpoints with Orbax: a run that is killed at a random step and resumed ends where the unbroken run ends.

Without arguments the whole demonstration runs: one run without interruption, one that kills itself (SIGKILL:
nothing is flushed, nothing is cleaned up), the resumed rest, and a comparison of the parameters and of the
whole optimizer state, bit for bit. `--run FOLDER` is one such run.
"""

import argparse
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import datasets
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from flax import linen

import cgalr_jax
from cgalr_jax import capture

NETWORK = linen.Sequential([linen.Dense(32), linen.relu, linen.Dense(32), linen.relu, linen.Dense(10)])
BATCH = 32


def run(folder, steps, seed, kill_at):
    """Trains from the last checkpoint in the folder, or from the start; returns a digest of all arrays."""
    data = datasets.digits(seed)
    x, y = data.x.reshape(-1, 64), data.y
    params = NETWORK.init(jax.random.key(seed), x[:1])["params"]
    probe = capture.linen_probe(NETWORK)
    schedule = optax.cosine_decay_schedule(1e-2, steps)
    tx = cgalr_jax.cgalr(schedule, capture.example(probe, params, x[:BATCH]), samples=x[:BATCH], every=5)
    state = capture.TrainState.create(apply_fn=NETWORK.apply, params=params, tx=tx)

    @jax.jit
    def step(state, x, y):
        def loss_fn(params):
            logits = state.apply_fn({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        return state.apply_gradients(grads=jax.grad(loss_fn)(state.params), probe=probe, samples=x)

    options = ocp.CheckpointManagerOptions(max_to_keep=2, save_interval_steps=5)
    folder = pathlib.Path(folder).resolve()
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
        for t in range(start, steps):
            batch = np.random.default_rng((seed, t)).choice(len(x), BATCH, replace=False)  # a function of t
            state = step(state, x[batch], y[batch])
            arrays = {"params": state.params, "opt_state": state.opt_state}
            manager.save(t, args=ocp.args.StandardSave(arrays))
            if t == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
    content = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(arrays))
    scale = float(cgalr_jax.metrics(state)["cgalr/scale"])
    return f"scale {scale:.6g} digest {hashlib.sha256(content).hexdigest()}"


def demonstrate(steps, seed):
    """The unbroken, the killed and the resumed run, each in a process of its own."""

    def start(folder, *arguments):
        command = [sys.executable, __file__, "--run", folder, "--steps", str(steps), "--seed", str(seed)]
        return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)

    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as broken:
        unbroken = start(whole)
        kill_at = int(np.random.default_rng(seed).integers(steps // 2, steps - 1))
        killed = start(broken, "--kill-at", kill_at)
        resumed = start(broken)
    print(f"unbroken: {unbroken.stdout.strip() or unbroken.stderr}")
    print(f"killed at step {kill_at}: exit status {killed.returncode}")
    print(f"resumed: {resumed.stdout.strip() or resumed.stderr}")
    if killed.returncode != -signal.SIGKILL or "resumed" not in resumed.stdout:
        raise SystemExit("The second run must be killed, and resumed.")
    if unbroken.stdout.splitlines()[-1:] != resumed.stdout.splitlines()[-1:]:
        raise SystemExit("Both must end with the same bits.")
    print("the same, bit for bit")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="40 steps instead of 300")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--run", metavar="FOLDER", help="train once, with checkpoints in this folder")
    parser.add_argument("--kill-at", type=int, metavar="STEP", help="with --run: end it by SIGKILL")
    args = parser.parse_args()
    steps = args.steps or (40 if args.quick else 300)
    if args.run:
        print(run(args.run, steps, args.seed, args.kill_at))
    else:
        demonstrate(steps, args.seed)


if __name__ == "__main__":
    main()
