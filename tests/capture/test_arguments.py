"""The calls that people try first work, and wrong ones are told what to do, in the first line."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen, nnx

from cgalr_jax import capture

X = jnp.ones((4, 3))


class Net(linen.Module):
    @linen.compact
    def __call__(self, x, train=True):
        x = linen.BatchNorm()(linen.Dense(5)(x), use_running_average=not train)
        return linen.Dense(2)(linen.relu(x))


LINEN = Net()
VARIABLES = LINEN.init(jax.random.key(0), X)
PARAMS = VARIABLES["params"]


def nnx_model():
    rngs = nnx.Rngs(0)
    return nnx.Sequential(nnx.Linear(3, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 2, rngs=rngs))


NNX = nnx_model()


@pytest.mark.parametrize(
    "call",
    [
        lambda: capture.example(LINEN, PARAMS, X),
        lambda: capture.example(LINEN, VARIABLES, X),
        lambda: capture.example(capture.linen_probe(LINEN), PARAMS, X),
        lambda: capture.example(capture.linen_probe(LINEN), VARIABLES, X),
        lambda: capture.example(capture.linen_probe(LINEN, samples=X), PARAMS),
        lambda: capture.example(LINEN, PARAMS, X, forward=lambda model, x: model(x, train=False)),
    ],
)
def test_example_of_linen(call):
    assert call() == {"Dense_0": jax.ShapeDtypeStruct((4, 5), jnp.float32)}


@pytest.mark.parametrize(
    "call",
    [
        lambda: capture.example(NNX, X),
        lambda: capture.example(NNX, jax.ShapeDtypeStruct(X.shape, X.dtype)),
        lambda: capture.example(capture.nnx_probe(NNX), NNX, X),
        lambda: capture.example(capture.nnx_probe(NNX), nnx.state(NNX, nnx.Param), X),
        lambda: capture.example(capture.nnx_probe(NNX, X), NNX),
        lambda: capture.example(NNX, X, layers=["layers/0"]),
    ],
)
def test_example_of_nnx(call):
    assert call() == {"layers/0": jax.ShapeDtypeStruct((4, 5), jnp.float32)}


def test_example_of_an_abstract_nnx_model():
    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.a, self.b = nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs)
            self.norm, self.drop = nnx.BatchNorm(5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.b(self.drop(self.norm(self.a(x))))

    samples = jax.ShapeDtypeStruct((4, 3), jnp.float32)
    assert capture.example(nnx.eval_shape(Net), samples) == capture.example(Net(), samples)


def test_example_of_a_function_of_ones_own():
    hidden = lambda params, x: {"hidden": x @ params["w"]}  # noqa: E731
    found = capture.example(hidden, {"w": jnp.ones((3, 6))}, X)
    assert found == jax.eval_shape(hidden, {"w": jnp.ones((3, 6))}, X)


class Total(nnx.Module):
    def __call__(self, x):
        return x.sum()


WRONG = {
    "example of nothing": (lambda: capture.example(X), "model must be an instance of a Flax model, or"),
    "example of a class": (
        lambda: capture.example(Net, PARAMS, X),
        "model must be an instance of a Flax model, or a probe",
    ),
    "example without samples": (lambda: capture.example(NNX), "samples must be given once, after the nnx"),
    "example without params": (lambda: capture.example(LINEN, X), "params and samples must be given"),
    "example of a probe only": (lambda: capture.example(capture.nnx_probe(NNX)), "params must be given"),
    "params forgotten, nnx": (
        lambda: capture.example(capture.nnx_probe(NNX), X),
        "params must be the parameters of the model, nnx.state",
    ),
    "params forgotten, linen": (
        lambda: capture.example(capture.linen_probe(LINEN), X),
        "params must be the parameters of the model, model.init",
    ),
    "samples before params": (
        lambda: capture.example(LINEN, X, PARAMS),
        r"before the samples: example\(net, params, samples\), got an array of shape \(4, 3\)",
    ),
    "samples before params, linen probe": (
        lambda: capture.example(capture.linen_probe(LINEN), X, PARAMS),
        r"before the samples: probe\(params, samples\), got an array of shape \(4, 3\)",
    ),
    "samples before params, nnx probe": (
        lambda: jax.jit(capture.nnx_probe(NNX))(X, nnx.state(NNX, nnx.Param)),
        r"before the samples: probe\(params, samples\), got an array of shape \(4, 3\)",
    ),
    "text for params": (lambda: capture.example(LINEN, "params", X), "samples\\), got 'params'"),
    "layer that returns a number": (
        lambda: capture.example(nnx.Sequential(Total(), *NNX.layers), X, layers=[Total]),
        r"got one that returns an array of shape \(\)",
    ),
    "choice beside a probe": (
        lambda: capture.example(capture.nnx_probe(NNX), NNX, X, logits=True),
        "'logits'.* must be given to nnx_probe or linen_probe",
    ),
    "samples as variables": (lambda: capture.linen_probe(LINEN, X), "variables must be a mapping.*third"),
    "forward without params": (
        lambda: capture.linen_forward(LINEN, PARAMS, X),
        "variables must hold all collections, {'params'",
    ),
    "forward of samples": (lambda: capture.linen_forward(LINEN, X, X), "variables must be a mapping"),
    "mutable in no list": (
        lambda: capture.linen_forward(LINEN, VARIABLES, X, mutable="batch_stats"),
        "mutable must be a list of collections, got 'batch_stats'",
    ),
    "samples of samples": (lambda: capture.linen_samples(X, X), "variables must be a mapping"),
    "samples of a linen model": (
        lambda: capture.nnx_samples(LINEN, X),
        "model must be an instance of flax.nnx",
    ),
    "unknown keyword": (lambda: capture.nnx_probe(NNX, layer=["a"]), "keyword arguments .* got 'layer'"),
    "layers of a number": (lambda: capture.nnx_probe(NNX, layers=3), "layers must be a list"),
    "layers of modules": (lambda: capture.nnx_probe(NNX, layers=[NNX]), "layers must be a list"),
    "no layers": (lambda: capture.nnx_probe(NNX, layers=[]), "layers must have at least one entry"),
    "logits": (lambda: capture.nnx_probe(NNX, logits="yes"), "logits must be True or False, got 'yes'"),
    "pooled": (lambda: capture.linen_probe(LINEN, pooled=2), "pooled must be True or False, got 2"),
    "activation": (lambda: capture.nnx_probe(NNX, activation="relu"), "activation must be a function"),
    "forward": (lambda: capture.linen_probe(LINEN, forward=X), "forward must be a function"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_told_what_to_do(name):
    call, sentence = WRONG[name]
    with pytest.raises(ValueError, match=sentence) as error:
        call()
    assert error.match(f"^[^\\n]*{sentence}")  # in the first line


def test_train_state_lets_extra_arguments_pass_an_optimizer_that_knows_none():
    tx = optax.GradientTransformation(lambda params: (), lambda updates, state, params=None: (updates, state))
    state = capture.TrainState.create(apply_fn=LINEN.apply, params=PARAMS, tx=tx)
    assert int(state.apply_gradients(grads=PARAMS, probe=None).step) == 1


class WithStatistics(capture.TrainState):
    batch_stats: dict


class WithLoss(capture.TrainState):
    extra_arguments = (*capture.TrainState.extra_arguments, "loss")


def train_state(cls=WithStatistics, tx=optax.sgd(0.1), **fields):  # noqa: B008
    params = {"w": jnp.ones(3)}
    return params, cls.create(apply_fn=LINEN.apply, params=params, tx=tx, **fields)


@pytest.mark.parametrize("name", ["batch_stat", "sample", "loss"])
def test_train_state_loses_no_argument_that_is_misspelt(name):
    params, state = train_state(batch_stats={"mean": 0})
    sentence = rf"^keyword arguments must be fields .*'batch_stats'.*'probe'.*, got '{name}'"
    with pytest.raises(ValueError, match=sentence):
        state.apply_gradients(grads=params, **{name: {"mean": 1}})
    assert state.apply_gradients(grads=params, batch_stats={"mean": 1}).batch_stats == {"mean": 1}


def test_train_state_passes_the_extra_arguments_of_other_optimizers():
    def squared(params, scale=1.0):
        return scale * jnp.sum(params["w"] ** 2)

    for tx in (optax.contrib.reduce_on_plateau(patience=1), optax.polyak_sgd()):
        params, state = train_state(capture.TrainState, tx)
        assert int(state.apply_gradients(grads=params, value=squared(params), probe=None).step) == 1
    params, state = train_state(capture.TrainState, optax.lbfgs())
    value, grads = jax.value_and_grad(squared)(params, 3.0)
    after = state.apply_gradients(grads=grads, value=value, grad=grads, value_fn=squared, scale=3.0)
    assert squared(after.params) < squared(params)


def test_train_state_keeps_an_optimizer_that_is_replaced():
    params, state = train_state(capture.TrainState)
    other = optax.sgd(1.0)
    after = state.apply_gradients(grads=params, tx=other)
    assert after.tx is other
    assert after.params["w"][0] == pytest.approx(0.9)  # this step is of the one before, as Flax has it


def test_train_state_passes_an_extra_argument_of_ones_own():
    def update(updates, state, params=None, *, loss, **extra_args):
        return jax.tree.map(lambda u: loss * u, updates), state

    tx = optax.GradientTransformationExtraArgs(lambda params: (), update)
    params, state = train_state(WithLoss, tx)
    assert state.apply_gradients(grads=params, loss=2.0).params["w"][0] == 3.0
