"""Samples, `forward` and `activation` that are not what they should be: our error names them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from cgalr_jax import capture

X = jnp.ones((4, 3))
LINEN = linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)])
VARIABLES = LINEN.init(jax.random.key(0), X)


def nnx_net():
    rngs = nnx.Rngs(0)
    return nnx.Sequential(nnx.Linear(3, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 2, rngs=rngs))


def in_linen(samples, **choice):
    return capture.linen_probe(LINEN, **choice)(VARIABLES, samples)


def in_linen_forward(samples, **choice):
    return capture.linen_forward(LINEN, VARIABLES, samples, **choice)


def in_nnx(samples, **choice):
    model = nnx_net()
    return capture.nnx_probe(model, **choice)(nnx.state(model, nnx.Param), samples)


def in_nnx_forward(samples, **choice):
    return capture.nnx_forward(nnx_net(), samples, **choice)


WAYS = pytest.mark.parametrize("way", [in_linen, in_linen_forward, in_nnx, in_nnx_forward])


@WAYS
@pytest.mark.filterwarnings("ignore:shape requires ndarray:DeprecationWarning")  # as linen asks for it
@pytest.mark.parametrize("samples", [None, "abc", {"x": X}, (X, {"y": X}), 5], ids=str)
def test_samples_that_the_model_does_not_take(way, samples):
    with pytest.raises(ValueError, match=r"^samples must be what the model takes, .*; got "):
        way(samples)


@pytest.mark.parametrize(
    "arguments", [(nnx_net(),), (LINEN, VARIABLES), (capture.linen_probe(LINEN), VARIABLES)]
)
def test_an_example_of_samples_that_are_no_arrays(arguments):
    with pytest.raises(ValueError, match="^samples must be arrays or jax.ShapeDtypeStructs, got 'abc'"):
        capture.example(*arguments, "abc")


def test_what_a_model_takes_is_its_own_matter():
    class Pair(linen.Module):
        @linen.compact
        def __call__(self, samples):
            x, scale = samples
            hidden = linen.Dense(5)(x)
            return linen.Dense(2)(hidden * scale["by"])

    net, samples = Pair(), (X, {"by": 2.0})
    assert list(capture.example(net, net.init(jax.random.key(0), samples), samples)) == ["Dense_0"]


class Averaging(nnx.Module):
    def __init__(self):
        self.dense, self.average = nnx.Linear(3, 5, rngs=nnx.Rngs(0)), nnx.BatchStat(jnp.zeros(5))

    def __call__(self, x):
        return self.dense(x)


@pytest.mark.parametrize("way", [in_linen, in_nnx])
def test_variables_of_another_model_beside_the_samples(way):
    with pytest.raises(ValueError, match=r"^samples must be those of .*, got other variables: {'average'"):
        way(capture.nnx_samples(Averaging(), X))


@WAYS
@pytest.mark.parametrize("kind", [ValueError, TypeError, KeyError, IndexError, AttributeError])
def test_an_error_without_words_is_the_models_own(way, kind):
    def forward(model, samples):
        model(samples)
        raise kind

    with pytest.raises(kind, match="^$"):
        way(X, forward=forward)


def test_an_error_of_a_model_with_arrays_is_its_own():
    for way in (in_linen, in_nnx):
        with pytest.raises(Exception, match="^(?!samples must|forward must)"):
            way(jnp.ones((4, 7)))


@WAYS
@pytest.mark.parametrize(
    "forward",
    [lambda model, x: x, lambda x, model: model(x), lambda model, x: None],
    ids=["not", "swapped", "None"],
)
def test_a_forward_that_does_not_run_the_model(way, forward):
    with pytest.raises(
        ValueError, match=r"^forward must run the model, forward\(model, samples\), .* got <func"
    ):
        way(X, forward=forward)


@WAYS
@pytest.mark.parametrize(
    "activation",
    [
        lambda x: None,
        lambda x: x.sum(),
        lambda x: 3.0,
        lambda x: (x, x),
        lambda x: x[:2],
        lambda x: "a",
        np.asarray,
    ],
    ids=["None", "scalar", "number", "pair", "fewer samples", "text", "numpy"],
)
def test_an_activation_that_does_not_return_the_samples(way, activation):
    with pytest.raises(ValueError, match="^activation must "):
        jax.eval_shape(lambda x: way(x, activation=activation), X)


@WAYS
@pytest.mark.parametrize(
    "activation", [jax.nn.relu, lambda x: jnp.concatenate([x, -x], -1)], ids=["relu", "crelu"]
)
def test_an_activation_that_does(way, activation):
    found = way(X, activation=activation)
    layers = found if isinstance(found, dict) else found[1]
    assert [x.shape[0] for x in layers.values()] == [4]


def test_lora_is_measured_with_its_base_module():
    """The base alone does not train: its output says nothing of the adapter."""
    rngs = nnx.Rngs(0)
    adapter = nnx.LoRA(3, 2, 5, base_module=nnx.Linear(3, 5, rngs=rngs), rngs=rngs)
    model = nnx.Sequential(adapter, nnx.relu, nnx.Linear(5, 2, rngs=rngs))
    params = nnx.state(model, nnx.Any(nnx.Param, nnx.LoRAParam))
    before = capture.nnx_probe(model)(params, X)
    assert list(before) == ["layers/0"]
    adapter.lora_b.set_value(jnp.ones((2, 5)))
    after = capture.nnx_probe(model)(nnx.state(model, nnx.Any(nnx.Param, nnx.LoRAParam)), X)
    assert jnp.abs(after["layers/0"] - before["layers/0"]).max() > 0


def test_a_layer_that_cannot_be_reached_with_no_other_beside_it():
    class Loop(nnx.Module):
        def __init__(self):
            self.dense = nnx.Linear(3, 3, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return nnx.fori_loop(0, 2, lambda i, carry: (carry[0], carry[0](carry[1])), (self.dense, x))[1]

    with pytest.raises(ValueError, match="choose other layers, or write a probe of your own.$"):
        capture.nnx_forward(Loop(), X)
