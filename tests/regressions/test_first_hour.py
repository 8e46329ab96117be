"""Mistakes of a first hour: each is told in its first line what to do, or simply works."""

import functools
import types

import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import cgalr_jax
from cgalr_jax import capture, signals

X = jax.random.normal(jax.random.key(0), (16, 4))
PARAMS = {"w": jnp.ones((4, 6)), "v": jnp.ones(6)}
NET = linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(3)])
VARIABLES = NET.init(jax.random.key(0), X)
NNX = nnx.Sequential(nnx.Linear(4, 5, rngs=nnx.Rngs(0)), nnx.relu, nnx.Linear(5, 3, rngs=nnx.Rngs(0)))


def probe(params):
    return {"hidden": X @ params["w"]}


def paired(params, samples):
    return {"hidden": samples @ params["w"]}


EXAMPLE = jax.eval_shape(probe, PARAMS)


def block(**options):
    return cgalr_jax.scale_by_connectome(**{"example": EXAMPLE, **options})


def update(tx, params=PARAMS, **extra):
    return tx.update(PARAMS, tx.init(PARAMS), params, **extra)


def with_train_state(kind, **extra):
    tx = block(example=capture.example(NET, VARIABLES["params"], X), samples=X)
    state = kind.create(apply_fn=NET.apply, params=VARIABLES["params"], tx=tx)
    return state.apply_gradients(grads=VARIABLES["params"], **extra)


class LinenTrain(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        return linen.Dense(3)(x)


class NNXTrain(nnx.Module):
    def __init__(self):
        self.dense = nnx.Linear(4, 3, rngs=nnx.Rngs(0))

    def __call__(self, x, train):
        return self.dense(x)


flax_state = flax.training.train_state.TrainState
linen_probe = capture.linen_probe(NET)

TOLD = {
    "no probe": (lambda: update(block()), "probe or activations must be passed to update"),
    "no params": (
        lambda: update(block(), None, probe=probe),
        "params must be passed to update, tx.update(grads",
    ),
    "samples in the update only": (
        lambda: update(block(), probe=paired, samples=X),
        "samples must be passed to both scale_by_connectome and update, or to neither, got them in update",
    ),
    "samples in the constructor only": (
        lambda: update(block(samples=X), probe=paired),
        "samples must be passed to both scale_by_connectome and update, or to neither, got them in scale",
    ),
    "a probe of one argument, paired": (
        lambda: update(block(samples=X), probe=probe, samples=X),
        "probe must take 2 arguments, probe(params, samples) -> activations, got probe(params)",
    ),
    "a probe of two arguments, fixed": (
        lambda: update(block(), probe=paired),
        "probe must take 1 argument, probe(params) -> activations, if no samples are passed to ",
    ),
    "a probe of no arguments": (
        lambda: update(block(), probe=lambda: probe(PARAMS)),
        "probe must take 1 argument, probe(params) -> activations",
    ),
    "what the probe returned, as the probe": (
        lambda: update(block(), probe=probe(PARAMS)),
        "probe must be a function, probe(params) -> activations",
    ),
    "the probe as the example": (
        lambda: block(example=probe),
        "example must be what the probe returns, jax.eval_shape(probe, params), got",
    ),
    "the parameters as the example": (
        lambda: block(example=PARAMS),
        "example must hold activations [N, ..., F], their jax.ShapeDtypeStructs (jax.eval_shape",
    ),
    "no example": (
        lambda: block(example=None),
        "example must be what the probe returns, jax.eval_shape(probe, params) for instance",
    ),
    "the smaller last batch": (
        lambda: update(block(samples=X), probe=paired, samples=X[:5]),
        "samples must have the shape of those that the transformation was made with, (16, 4), or more rows; "
        "got (5, 4). Drop the last, smaller batch",
    ),
    "samples of another width": (
        lambda: update(block(samples=X), probe=paired, samples=X[:, :3]),
        "samples must have the shape of those that the transformation was made with, (16, 4), or more rows; "
        "got (16, 3). Only the number of rows may differ.",
    ),
    "a number as the schedule": (
        lambda: cgalr_jax.calibrated(1e-3),
        "schedule must be a function, step -> learning",
    ),
    "a factory as the schedule": (
        lambda: cgalr_jax.cgalr(optax.cosine_decay_schedule, EXAMPLE),
        "learning_rate must take 1 argument, a schedule, step -> learning rate, got cosine_decay_schedule(",
    ),
    "calibrated, without parentheses": (
        lambda: block(controller=cgalr_jax.calibrated),
        "controller must be a cgalr_jax.Controller, got the function calibrated; call it: calibrated()",
    ),
    "hybrid, without parentheses": (
        lambda: block(signal=signals.hybrid),
        "signal must be a cgalr_jax.Signal, got the function hybrid; call it: hybrid()",
    ),
    "a schedule as the controller": (
        lambda: block(controller=optax.cosine_decay_schedule(0.1, 100)),
        "controller must be a cgalr_jax.Controller, got the function schedule.",
    ),
    "the name of a signal": (
        lambda: block(signal="births"),
        "signal must be a cgalr_jax.Signal, got 'births'",
    ),
    "the rate in the optimizer, too": (
        lambda: cgalr_jax.cgalr(0.1, EXAMPLE, optimizer=functools.partial(optax.adamw, 0.1)),
        "optimizer must be a function, learning_rate -> optax.GradientTransformation, got functools.partial(",
    ),
    "the rate in the optimizer, by name": (
        lambda: cgalr_jax.cgalr(0.1, EXAMPLE, optimizer=functools.partial(optax.sgd, learning_rate=0.1)),
        "optimizer must be a function, learning_rate -> optax.GradientTransformation, got functools.partial(",
    ),
    "an optimizer, already built": (
        lambda: cgalr_jax.cgalr(0.1, EXAMPLE, optimizer=optax.adam(0.1)),
        "optimizer must be a function, learning_rate -> optax.GradientTransformation, got "
        "GradientTransformationExtraArgs, one that is built already; pass optax.adamw itself",
    ),
    "never measured": (lambda: block(every=0), "every must be an integer of at least 1, got 0"),
    "flax's TrainState, with a probe": (
        lambda: with_train_state(flax_state, probe=linen_probe, samples=X),
        "probe or activations must be passed to update",
    ),
    "our TrainState, without": (
        lambda: with_train_state(capture.TrainState),
        "probe or activations must be passed to update",
    ),
    "linen_probe, not called": (
        lambda: update(block(samples=X), probe=capture.linen_probe, samples=X),
        "model must be an instance of flax.linen.Module, as in probe=linen_probe(model), got",
    ),
    "a linen model for nnx": (lambda: capture.nnx_probe(NET), "model must be an instance of flax.nnx.Module"),
    "an nnx model for linen": (
        lambda: capture.linen_probe(NNX),
        "model must be an instance of flax.linen.Module",
    ),
    "a linen model that takes train": (
        lambda: capture.example(LinenTrain(), {}, X),
        "forward must be passed, to capture.example and to the probe, if the model takes other arguments "
        "than samples: forward=lambda model, x: model(x, train=False)",
    ),
    "an nnx model that takes train": (
        lambda: capture.example(NNXTrain(), X),
        "forward must be passed, to capture.example and to the probe, if the model takes other arguments "
        "than samples: forward=lambda model, x: model(x, train=False)",
    ),
    "samples for parameters": (
        lambda: capture.example(capture.nnx_probe(NNX), X),
        "params must be the parameters of the model, nnx.state(model, nnx.Param)",
    ),
    "a layer by itself, as the model": (
        lambda: capture.example(nnx.Linear(4, 3, rngs=nnx.Rngs(0)), X),
        "model must have layers inside, got a layer by itself: put it into an nnx.Sequential",
    ),
    "a linen layer by itself": (
        lambda: capture.example(linen.Dense(3), linen.Dense(3).init(jax.random.key(0), X)["params"], X),
        "model must have layers inside, got a layer by itself: put it into an nnx.Sequential",
    ),
    "a layer that is not there": (
        lambda: capture.example(capture.linen_probe(NET, layers=["nosuch"]), VARIABLES["params"], X),
        "layers must match some of ['layers_0', 'layers_2'], got no match for ['nosuch']",
    ),
    "metrics of the parameters": (
        lambda: cgalr_jax.metrics(PARAMS),
        "opt_state must contain the state of scale_by_connectome, cgalr or connectome_schedule",
    ),
    "metrics of Adam": (
        lambda: cgalr_jax.metrics(optax.adam(1e-3).init(PARAMS)),
        "opt_state must contain the state of scale_by_connectome, cgalr or connectome_schedule",
    ),
    "a checkpoint that is not there": (  # what Orbax's metadata(path) is then
        lambda: cgalr_jax.check_checkpoint(types.SimpleNamespace(item_metadata=None), block().init(PARAMS)),
        "stored must hold as many states of scale_by_connectome as the optimizer, 1, got 0. Is there a "
        "checkpoint at this path?",
    ),
    "a finder's step that takes a batch": (
        lambda: cgalr_jax.find_learning_rate(lambda state, x, y: state, PARAMS, probe),
        "step must take 2 arguments, step(state, learning_rate) -> state, got <lambda>(state, x, y)",
    ),
    "a finder's step that returns the loss": (
        lambda: cgalr_jax.find_learning_rate(lambda state, rate: (state, 0.0), PARAMS, probe),
        "step must return the state it is given, step(state, learning_rate) -> state",
    ),
    "an optimizer as a finder's step": (
        lambda: cgalr_jax.find_learning_rate(optax.adamw, PARAMS, probe),
        "step must be one training step, step(state, learning_rate) -> state, got",
    ),
    "a finder's step that ignores its rate": (
        lambda: cgalr_jax.find_learning_rate(lambda state, rate: state, PARAMS, probe),
        "step must use its learning rate, step(state, learning_rate) -> state, got",
    ),
    "a finder's step that moves nothing": (
        lambda: cgalr_jax.find_learning_rate(
            lambda state, rate: jax.tree.map(lambda x: x + 0 * rate, state), PARAMS, probe
        ),
        "lowest and highest must enclose rates that move the network",
    ),
}


@pytest.mark.parametrize("mistake", TOLD)
def test_the_first_line_says_what_to_do(mistake):
    call, sentence = TOLD[mistake]
    with pytest.raises(ValueError) as error:  # noqa: PT011, the sentence is looked at below
        call()
    assert str(error.value).splitlines()[0].startswith(sentence)


def test_python_names_an_argument_that_is_none():
    with pytest.raises(TypeError, match="unexpected keyword argument 'learning_rate'"):
        block(learning_rate=1e-3)


def last_read(every):
    """The step of the last reading within three."""
    tx = block(every=every, signal=signals.update_norm())
    state = tx.init(PARAMS)
    for _ in range(3):
        state = tx.update(PARAMS, state, PARAMS)[1]
    return optax.tree.get(state, "cg_step") - optax.tree.get(state, "cg_moves")  # each step moves


# {what is understood: it, and what it means}
WORKS = {
    "all variables where parameters are asked for": (
        lambda: capture.example(linen_probe, VARIABLES, X),
        lambda: capture.example(linen_probe, VARIABLES["params"], X),
    ),
    "an nnx model instead of its probe": (
        lambda: capture.example(NNX, X),
        lambda: capture.example(capture.nnx_probe(NNX), nnx.state(NNX, nnx.Param), X),
    ),
    "an example of shapes": (
        lambda: block(example=EXAMPLE).init(PARAMS),
        lambda: block(example={"hidden": EXAMPLE["hidden"].shape[-1]}).init(PARAMS),
    ),
    "a number as every": (lambda: last_read(jnp.int32(2)), lambda: 2),
}


@pytest.mark.parametrize("name", WORKS)
def test_it_is_understood(name):
    found, meant = (call() for call in WORKS[name])
    assert jax.tree.leaves(found)
    jax.tree.map(np.testing.assert_array_equal, found, meant)


def test_a_schedule_of_a_probe_of_parameters_is_told_to_bind_them():
    schedule = cgalr_jax.connectome_schedule(0.1, EXAMPLE)
    with pytest.raises(
        ValueError, match=r"^probe must take 0 arguments, probe\(\) -> activations.*got probe\(params\)"
    ):
        schedule.update(schedule.init(), probe=probe)


def test_a_model_as_the_probe_is_named():
    tx = cgalr_jax.scale_by_connectome({"h": 4})
    params = {"w": jnp.ones((3, 4))}
    for model in (nnx.Linear(3, 4, rngs=nnx.Rngs(0)), linen.Dense(4)):
        with pytest.raises(ValueError, match="probe must be a function, .* a model: .*nnx_probe"):
            tx.update(params, tx.init(params), params, probe=model)
