"""Which layers are captured from Flax models, with which axes, and that nothing of the model changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training import train_state
from light import PLAIN

import cgalr_jax
from cgalr_jax import capture

FLAT, SEQUENCES, IMAGES = (4, 8), (4, 5, 8), (4, 6, 6, 3)


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def inputs(shape):
    return jax.random.normal(jax.random.key(1), shape)


# --- models, written once in each API


class LinenBlock(linen.Module):
    @linen.compact
    def __call__(self, x, _=None):
        x = linen.relu(linen.Dense(8, name="dense")(x))
        self.sow("intermediates", "hidden", x)
        return x, None


class LinenScanned(linen.Module):
    carried: bool = True

    @linen.compact
    def __call__(self, x):
        axes = {"params": 0, "intermediates": 0} if self.carried else {"params": 0}
        scan = linen.scan(LinenBlock, variable_axes=axes, split_rngs={"params": True}, length=3)
        return linen.Dense(2, name="out")(scan(name="blocks")(x, None)[0])


class LinenUnrolled(linen.Module):
    """The layers of LinenScanned one after the other, from the same stacked parameters."""

    @linen.compact
    def __call__(self, x):
        for i in range(3):
            x = linen.relu(linen.Dense(8, name=f"dense{i}")(x))
        return linen.Dense(2, name="out")(x)


class LinenOverTime(linen.Module):
    @linen.compact
    def __call__(self, x):
        scan = linen.scan(
            linen.GRUCell,
            variable_broadcast="params",
            variable_axes={"intermediates": 0},
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )
        return linen.Dense(2)(scan(6, name="cell")(jnp.zeros((x.shape[0], 6)), x)[1])


class LinenCnn(linen.Module):
    @linen.compact
    def __call__(self, x, train: bool):
        x = linen.relu(linen.Conv(5, (3, 3), name="conv")(x))
        x = linen.BatchNorm(use_running_average=not train)(x)
        x = linen.Dropout(0.5, deterministic=not train)(x)
        x = linen.relu(linen.Dense(7, name="dense")(x.reshape(len(x), -1)))
        return linen.Dense(2, name="out")(x)


class LinenWeightNorm(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.WeightNorm(linen.Dense(6))(x))
        x = linen.WeightNorm(linen.DenseGeneral((5, 3)), name="heads")(x)
        return linen.Dense(2, name="out")(x.reshape(len(x), -1))


class LinenWrapped(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.remat(linen.Dense)(8, name="remat")(x)
        x = linen.jit(linen.Dense)(8, name="jit")(x)
        shared = linen.vmap(
            linen.Dense, variable_axes={"params": None, "intermediates": 0}, split_rngs={"params": False}
        )
        members = linen.vmap(
            linen.Dense,
            in_axes=None,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True},
            axis_size=2,
        )
        x = members(8, name="members")(shared(8, name="shared")(x))
        return linen.Dense(2, name="out")(x.sum(0))


class LinenSequence(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.RNN(linen.LSTMCell(6), name="rnn")(x)
        x = linen.MultiHeadDotProductAttention(2, name="attention")(x)
        cell, carry, outputs = linen.GRUCell(6, name="cell"), jnp.zeros((x.shape[0], 6)), []
        for t in range(x.shape[1]):
            carry, output = cell(carry, x[:, t])
            outputs.append(output)
        return linen.Dense(2, name="out")(jnp.stack(outputs, 1))


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(8, 8, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.dense(x))
        self.sow(nnx.Intermediate, "hidden", x)
        return x


class NnxScanned(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def create(rngs):
            return NnxBlock(rngs)

        self.blocks = create(rngs)
        self.out = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(block, x):
            return block(x)

        return self.out(run(self.blocks, x))


class NnxCnn(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 5, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(180, 7, rngs=rngs)
        self.out = nnx.Linear(7, 2, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(self.norm(nnx.relu(self.conv(x))))
        return self.out(nnx.relu(self.dense(x.reshape(len(x), -1))))


class NnxWrapped(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([NnxBlock(rngs), NnxBlock(rngs)])
        self.out = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        x = nnx.remat(lambda block, x: block(x))(self.blocks[0], x)
        return self.out(nnx.jit(lambda block, x: block(x))(self.blocks[1], x))


class NnxSequence(nnx.Module):
    def __init__(self, rngs):
        self.rnn = nnx.RNN(nnx.GRUCell(8, 6, rngs=rngs), rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 6, decode=False, rngs=rngs)
        self.cell = nnx.GRUCell(6, 6, rngs=rngs)
        self.out = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        x = self.attention(self.rnn(x))
        carry, outputs = jnp.zeros((x.shape[0], 6)), []
        for t in range(x.shape[1]):
            carry, output = self.cell(carry, x[:, t])
            outputs.append(output)
        return self.out(jnp.stack(outputs, 1))


# Each model is made once for all tests: no probe changes it.


@functools.cache
def linen_variables(model, shape, **arguments):
    """Any numbers of the right shapes: nothing is compiled to draw them."""
    random = np.random.default_rng(0)
    found = jax.eval_shape(functools.partial(model.init, **arguments), jax.random.key(0), inputs(shape))
    return {
        name: jax.tree.map(
            lambda leaf, lowest=-1 if name == "params" else 0.5: random.uniform(lowest, 1, leaf.shape).astype(
                leaf.dtype
            ),
            collection,
        )
        for name, collection in found.items()
    }


def linen_case(model, shape, **choice):
    variables = linen_variables(model, shape)
    return capture.linen_probe(model, variables, **choice), variables["params"], inputs(shape)


@functools.cache
def nnx_model(cls):
    return cls(nnx.Rngs(0))


def nnx_case(cls, shape, **choice):
    model = nnx_model(cls)
    return capture.nnx_probe(model, **choice), nnx.state(model, nnx.Param), inputs(shape)


WHICH = {
    "linen: one entry a scanned layer": (
        lambda **c: linen_case(LinenScanned(), FLAT, **c),
        {f"blocks/dense/{i}": (4, 8) for i in range(3)},
    ),
    "linen: scanned over time": (
        lambda **c: linen_case(LinenOverTime(), SEQUENCES, **c),
        {"cell": (4, 5, 6)},
    ),
    "linen: image": (
        lambda **c: linen_cnn(**c),
        {"conv": (4, 6, 6, 5), "dense": (4, 7)},
    ),
    "linen: remat, jit, vmap": (
        lambda **c: linen_case(LinenWrapped(), FLAT, **c),
        {"remat": (4, 8), "jit": (4, 8), "shared": (4, 8), "members/0": (4, 8), "members/1": (4, 8)},
    ),
    "linen: weight norm": (
        lambda **c: linen_case(LinenWeightNorm(), FLAT, **c),
        {"WeightNorm_0": (4, 6), "heads": (4, 15)},
    ),
    "linen: sequences": (
        lambda **c: linen_case(LinenSequence(), SEQUENCES, **c),
        {"rnn": (4, 5, 6), "attention": (4, 5, 6), "cell": (4, 5, 6)},
    ),
    "nnx: one entry a scanned layer": (
        lambda **c: nnx_case(NnxScanned, FLAT, **c),
        {f"blocks/dense/{i}": (4, 8) for i in range(3)},
    ),
    "nnx: image": (
        lambda **c: nnx_case(NnxCnn, IMAGES, **c),
        {"conv": (4, 6, 6, 5), "dense": (4, 7)},
    ),
    "nnx: remat, jit, list": (
        lambda **c: nnx_case(NnxWrapped, FLAT, **c),
        {"blocks/0/dense": (4, 8), "blocks/1/dense": (4, 8)},
    ),
    "nnx: sequences": (
        lambda **c: nnx_case(NnxSequence, SEQUENCES, **c),
        {"rnn": (4, 5, 6), "attention": (4, 5, 6), "cell": (4, 5, 6)},
    ),
}


def linen_cnn(**choice):
    model, x = LinenCnn(), inputs(IMAGES)
    variables = linen_variables(model, IMAGES, train=False)
    forward = lambda model, x: model(x, train=False)  # noqa: E731
    return capture.linen_probe(model, variables, forward=forward, **choice), variables["params"], x


@pytest.mark.parametrize("name", WHICH)
def test_which_layers_and_axes(name):
    build, expected = WHICH[name]
    probe, params, x = build()
    for _ in range(2):  # a second trace says the same
        assert shapes(jax.eval_shape(functools.partial(probe), params, x)) == expected
    assert shapes(capture.example(probe, params, x)) == expected


@pytest.mark.parametrize("name", WHICH)
def test_logits_are_left_out_unless_asked_for(name):
    build, expected = WHICH[name]
    probe, params, x = build(logits=True)
    assert set(jax.eval_shape(probe, params, x)) - set(expected) in ({"out"}, {"Dense_0"})


@pytest.mark.parametrize("name", WHICH)
def test_pooled_averages_the_positions(name):
    build, _ = WHICH[name]
    probe, params, x = build()
    whole, pooled = jax.jit(lambda *given: (probe(*given), build(pooled=True)[0](*given)))(params, x)
    for layer, value in whole.items():
        mean = np.asarray(value).reshape(len(x), -1, value.shape[-1]).mean(1)
        np.testing.assert_allclose(pooled[layer], mean, rtol=1e-5, atol=1e-6)


def test_scanned_layers_are_the_layers_run_one_by_one():
    x = inputs(FLAT)
    probe, params, _ = linen_case(LinenScanned(), FLAT)
    unrolled = {f"dense{i}": jax.tree.map(lambda p: p[i], params["blocks"]["dense"]) for i in range(3)}  # noqa: B023
    expected = capture.linen_probe(LinenUnrolled())({**unrolled, "out": params["out"]}, x)
    found = probe(params, x)
    for i in range(3):
        np.testing.assert_allclose(found[f"blocks/dense/{i}"], expected[f"dense{i}"], rtol=1e-5, atol=1e-6)


def test_as_many_layers_as_samples_are_not_taken_for_a_batch():
    probe, params, x = linen_case(LinenScanned(), (3, 8))
    found = probe(params, x)
    assert {name: value.shape for name, value in found.items()} == {
        f"blocks/dense/{i}": (3, 8) for i in range(3)
    }
    kernel, bias = params["blocks"]["dense"]["kernel"][0], params["blocks"]["dense"]["bias"][0]
    np.testing.assert_allclose(found["blocks/dense/0"], x @ kernel + bias, rtol=1e-5, atol=1e-6)


def test_time_scan_keeps_samples_first():
    probe, params, x = linen_case(LinenOverTime(), SEQUENCES)
    model = LinenOverTime()
    _, outputs = model.apply({"params": params}, x, mutable=["intermediates"], capture_intermediates=True)
    stepped = outputs["intermediates"]["cell"]["__call__"][0][1]  # [T, N, F]
    np.testing.assert_allclose(probe(params, x)["cell"], jnp.moveaxis(stepped, 0, 1), rtol=1e-6)


def test_scan_that_keeps_its_intermediates_is_refused():
    model, x = LinenScanned(carried=False), inputs(FLAT)
    params = model.init(jax.random.key(0), x)["params"]
    with pytest.raises(ValueError, match=r"'blocks/dense' inside an nn.scan .* variable_axes"):
        capture.linen_probe(model)(params, x)
    assert list(capture.linen_probe(model, layers=["out"])(params, x)) == ["out"]


def test_layer_without_parameters_in_a_scan_is_refused():
    class Plain(linen.Module):
        @linen.compact
        def __call__(self, x, _):
            return 2 * x, None

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            scan = linen.scan(Plain, variable_axes={"intermediates": 0}, split_rngs={}, length=3)
            return scan(name="plain")(linen.Dense(8)(x), None)[0]

    probe, params, x = linen_case(Model(), FLAT, layers=[Plain])
    with pytest.raises(ValueError, match=r"layers must have known axes, got 'plain' of shape \(3, 4, 8\)"):
        probe(params, x)


def test_cell_inside_an_nnx_rnn_is_refused():
    probe, params, x = nnx_case(NnxSequence, SEQUENCES, layers=["rnn/cell"])
    sentence = r"'rnn/cell', .* inside an nnx.scan that carries .* among \['rnn'\]"
    with pytest.raises(ValueError, match=sentence):
        probe(params, x)


def carried(a, b, x):
    return nnx.scan(
        lambda carry, _: (carry[0], carry[0](carry[1])), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry
    )((a, x), jnp.arange(3))[1]


def shared(a, b, x):
    step = nnx.scan(lambda a, x, _: a(x), in_axes=(None, nnx.Carry, 0), out_axes=nnx.Carry)
    return step(a, x, jnp.arange(3))


TRANSFORMS = {  # what may be done with two layers: with both, or with the first
    "cond": lambda a, b, x: nnx.cond(True, lambda a, b, x: a(x), lambda a, b, x: b(x), a, b, x),
    "switch": lambda a, b, x: nnx.switch(jnp.int32(1), [lambda a, b, x: a(x), lambda a, b, x: b(x)], a, b, x),
    "fori_loop": lambda a, b, x: nnx.fori_loop(0, 3, lambda i, carry: (a := carry[0], a(carry[1])), (a, x))[
        1
    ],
    "while_loop": lambda a, b, x: nnx.while_loop(
        lambda carry: carry[1].sum() < 0, lambda carry: (carry[0], carry[0](carry[1])), (a, x)
    )[1],
    "scan": carried,
    "scan of a shared module": shared,
    "vmap": lambda a, b, x: nnx.vmap(lambda a, x: a(x), in_axes=(None, 0))(a, x),
}


class NnxTransformed(nnx.Module):
    def __init__(self, transform, rngs):
        self.transform = transform
        self.first, self.a, self.b = (nnx.Linear(8, 8, rngs=rngs) for _ in range(3))
        self.out = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(self.transform(self.a, self.b, nnx.remat(lambda layer, x: layer(x))(self.first, x)))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_layers_inside_what_nothing_is_sown_out_of_are_named_and_not_proposed(name):
    model, x = NnxTransformed(TRANSFORMS[name], nnx.Rngs(0)), inputs(FLAT)
    layers = ["a", "b"] if name in ("cond", "switch") else ["a"]
    with pytest.raises(ValueError, match=rf"nnx\.{name.split()[0]} that carries or shares") as error:
        capture.example(model, x)
    got, proposed = str(error.value).split(" inside ")
    assert got == f"layers must be reachable, got {layers}"
    assert "among ['first'" in proposed
    assert list(capture.example(model, x, layers=["first"])) == ["first"]


@pytest.mark.parametrize(
    ("case", "layers", "expected"),
    [
        (
            lambda **c: nnx_case(NnxSequence, SEQUENCES, **c),
            ["attention/query"],
            {"attention/query": (4, 5, 6)},
        ),
        (lambda **c: nnx_case(NnxSequence, SEQUENCES, **c), ["out"], {"out": (4, 5, 2)}),
        (lambda **c: nnx_case(NnxCnn, IMAGES, **c), [nnx.BatchNorm], {"norm": (4, 6, 6, 5)}),
        (
            lambda **c: nnx_case(NnxScanned, FLAT, **c),
            ["*/hidden"],
            {f"blocks/hidden/{i}": (4, 8) for i in range(3)},
        ),
        (
            lambda **c: nnx_case(NnxWrapped, FLAT, **c),
            ["*/dense", "*/hidden"],
            {f"blocks/{i}/{name}": (4, 8) for i in range(2) for name in ("dense", "hidden")},
        ),
        (
            lambda **c: linen_case(LinenSequence(), SEQUENCES, **c),
            ["attention/query"],
            {"attention/query": (4, 5, 6)},
        ),
        (
            lambda **c: linen_case(LinenScanned(), FLAT, **c),
            ["blocks/hidden"],
            {f"blocks/hidden/{i}": (4, 8) for i in range(3)},
        ),
        (
            lambda **c: linen_case(LinenScanned(), FLAT, **c),
            ["blocks"],
            {f"blocks/{i}": (4, 8) for i in range(3)},
        ),
        (
            lambda **c: linen_case(LinenWrapped(), FLAT, **c),
            ["remat", "out"],
            {"remat": (4, 8), "out": (4, 2)},
        ),
    ],
)
def test_layers_by_name_and_type(case, layers, expected):
    probe, params, x = case(layers=layers)
    assert shapes(jax.eval_shape(probe, params, x)) == expected


def test_a_name_that_matches_nothing_lists_what_there_is():
    probe, params, x = nnx_case(NnxCnn, IMAGES, layers=["dense", "encoder/*"])
    with pytest.raises(ValueError, match=r"\['conv', 'dense', .*'out'\], got no match for \['encoder/\*'\]"):
        probe(params, x)


def test_a_model_of_logits_alone_is_refused():
    model = linen.Dense(2)
    params = model.init(jax.random.key(0), inputs(FLAT))["params"]
    with pytest.raises(ValueError, match="model must have layers inside"):
        capture.linen_probe(model)(params, inputs(FLAT))


def test_tied_embeddings_leave_no_logits_to_leave_out():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.embed, self.dense = nnx.Embed(11, 6, rngs=rngs), nnx.Linear(6, 6, rngs=rngs)

        def __call__(self, tokens):
            return self.embed.attend(self.dense(self.embed(tokens)))

    model = Model(nnx.Rngs(0))
    tokens = jnp.zeros((4, 5), jnp.int32)
    assert shapes(capture.nnx_forward(model, tokens)[1]) == {"dense": (4, 5, 6)}


def test_activation_measures_behind_the_activation_function():
    probe, params, x = nnx_case(NnxCnn, IMAGES)
    behind = nnx_case(NnxCnn, IMAGES, activation=nnx.relu)[0](params, x)
    for name, value in probe(params, x).items():
        assert float(value.min()) < 0
        np.testing.assert_array_equal(behind[name], np.maximum(value, 0))


# --- the model is left alone


def test_nnx_probe_drops_nothing_out_and_changes_nothing():
    model, x = NnxCnn(nnx.Rngs(0)), inputs(IMAGES)
    model.train()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))))
    graph = nnx.graphdef(model)
    probe = capture.nnx_probe(model)
    first, second = (probe(nnx.state(model, nnx.Param), x) for _ in range(2))
    assert nnx.graphdef(model) == graph
    assert model.norm.use_running_average is False
    jax.tree.map(
        np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngState))), before
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)  # no dropout
    quiet = nnx.clone(model)
    quiet.set_attributes(nnx.Dropout, deterministic=True)
    np.testing.assert_array_equal(capture.nnx_forward(quiet, x)[1]["dense"], first["dense"])


def test_nnx_forward_is_the_models_own_call():
    model, x = NnxCnn(nnx.Rngs(0)), inputs(IMAGES)
    twin = nnx.clone(model)
    output, activations = nnx.jit(capture.nnx_forward)(model, x)
    np.testing.assert_allclose(output, twin(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.norm.mean[...], twin.norm.mean[...], rtol=1e-5)
    assert list(activations) == ["conv", "dense"]
    assert nnx.graphdef(model) == nnx.graphdef(twin)


def test_linen_forward_returns_what_may_change():
    model, x = LinenCnn(), inputs(IMAGES)
    variables = model.init(jax.random.key(0), x, train=False)
    forward = lambda model, x: model(x, train=True)  # noqa: E731
    arguments = {"rngs": {"dropout": jax.random.key(2)}, "mutable": ["batch_stats"]}
    output, activations, changed = capture.linen_forward(model, variables, x, forward=forward, **arguments)
    expected, state = model.apply(variables, x, train=True, **arguments)
    np.testing.assert_array_equal(output, expected)
    jax.tree.map(np.testing.assert_array_equal, changed, dict(state))
    assert list(activations) == ["conv", "dense"]


def test_samples_are_given_once():
    model, x = NnxCnn(nnx.Rngs(0)), inputs(IMAGES)
    params = nnx.state(model, nnx.Param)
    with pytest.raises(ValueError, match="samples must be given once"):
        capture.nnx_probe(model)(params)
    with pytest.raises(ValueError, match="samples must be given once"):
        capture.nnx_probe(model, x)(params, x)


# --- with the optimizers


@pytest.mark.parametrize("how", ["paired", pytest.param("fixed", marks=pytest.mark.slow), "activations"])
def test_nnx_optimizer(how):
    model, x = NnxCnn(nnx.Rngs(0)), inputs(IMAGES)
    target = jnp.arange(len(x)) % 2
    example = capture.example(capture.nnx_probe(model), model, x)
    stored = x if how == "paired" else None
    block = cgalr_jax.scale_by_connectome(example, samples=stored, every=2, **PLAIN)
    tx = optax.chain(optax.sgd(0.1), block)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    traces = []

    @nnx.jit
    def step(model, optimizer, x):
        traces.append(None)

        def loss(model):
            output, activations = capture.nnx_forward(model, x)
            return optax.losses.softmax_cross_entropy_with_integer_labels(output, target).mean(), activations

        (_, activations), grads = nnx.value_and_grad(loss, has_aux=True)(model)
        extra = {
            "paired": {"probe": capture.nnx_probe(model), "samples": x},
            "fixed": {"probe": capture.nnx_probe(model, x)},
            "activations": {"activations": activations},
        }[how]
        optimizer.update(model, grads, **extra)

    for _ in range(5):
        step(model, optimizer, x)
    assert len(traces) == 1
    found = cgalr_jax.metrics(optimizer)
    assert int(found["cgalr/measurements"]) == 2
    assert float(found["cgalr/distance"]) > 0
    for state in (nnx.state(optimizer), nnx.to_pure_dict(nnx.state((model, optimizer)))):
        assert cgalr_jax.metrics(state) == found


@pytest.mark.parametrize("how", ["paired", "fixed", pytest.param("activations", marks=pytest.mark.slow)])
def test_linen_train_state(how):
    class State(capture.TrainState):
        batch_stats: dict

    model, x = LinenCnn(), inputs(IMAGES)
    variables = model.init(jax.random.key(0), x, train=False)
    forward = lambda model, x: model(x, train=False)  # noqa: E731
    example = capture.example(capture.linen_probe(model, variables, forward=forward), variables["params"], x)
    stored = x if how == "paired" else None
    block = cgalr_jax.scale_by_connectome(example, samples=stored, every=2, **PLAIN)
    tx = optax.chain(optax.sgd(0.1), block)
    state = State.create(apply_fn=model.apply, tx=tx, **variables)

    traces = []

    @jax.jit
    def step(state, x):
        traces.append(None)
        others = {"batch_stats": state.batch_stats}

        def loss(params):
            output, activations, changed = capture.linen_forward(
                model,
                {"params": params, **others},
                x,
                rngs={"dropout": jax.random.fold_in(jax.random.key(1), state.step)},
                mutable=["batch_stats"],
                forward=lambda model, x: model(x, train=True),
            )
            return jnp.mean(output**2), (activations, changed)

        grads, (activations, changed) = jax.grad(loss, has_aux=True)(state.params)
        extra = {
            "paired": {"probe": capture.linen_probe(model, others, forward=forward), "samples": x},
            "fixed": {"probe": capture.linen_probe(model, others, x, forward=forward)},
            "activations": {"activations": activations},
        }[how]
        return state.apply_gradients(grads=grads, batch_stats=changed["batch_stats"], **extra)

    for _ in range(5):
        state = step(state, x)
    assert len(traces) == 1
    assert state.tx is tx
    assert int(state.step) == 5
    assert float(jnp.abs(state.batch_stats["BatchNorm_0"]["mean"]).max()) > 0
    assert int(cgalr_jax.metrics(state)["cgalr/measurements"]) == 2


def test_train_state_without_extra_arguments_is_flax_own():
    model, x = LinenUnrolled(), inputs(FLAT)
    params = model.init(jax.random.key(0), x)["params"]
    arguments = {"apply_fn": model.apply, "params": params, "tx": optax.adam(0.1)}
    ours = capture.TrainState.create(**arguments).apply_gradients(grads=params)
    flaxs = train_state.TrainState.create(**arguments).apply_gradients(grads=params)
    jax.tree.map(np.testing.assert_array_equal, ours.params, flaxs.params)
    jax.tree.map(np.testing.assert_array_equal, ours.opt_state, flaxs.opt_state)


def test_probe_runs_on_measurement_steps_alone():
    """Between measurements nothing of the probe is executed: a callback inside of it counts."""
    model, x = NnxCnn(nnx.Rngs(0)), inputs(IMAGES)
    ran = []

    def forward(model, x):
        jax.debug.callback(lambda: ran.append(None))
        return model(x)

    probe = capture.nnx_probe(model, x, forward=forward)
    params = nnx.state(model, nnx.Param)
    tx = cgalr_jax.scale_by_connectome(capture.example(probe, params), every=4, **PLAIN)
    update = jax.jit(lambda state: tx.update(params, state, params, probe=probe)[1])
    state = tx.init(params)
    for _ in range(9):
        state = update(state)
    jax.effects_barrier()
    assert len(ran) == 3


def test_an_optimizer_of_some_of_the_parameters():
    """The probe takes what the optimizer holds, and the rest from the model."""
    model, x = NnxCnn(nnx.Rngs(0)), inputs(IMAGES)
    head = nnx.All(nnx.Param, nnx.PathContains("dense"))
    example = capture.example(capture.nnx_probe(model), model, x)
    tx = optax.chain(
        optax.sgd(0.1),
        cgalr_jax.scale_by_connectome(example, samples=x, every=1, **PLAIN),
    )
    optimizer = nnx.Optimizer(model, tx, wrt=head)

    @nnx.jit
    def step(model, optimizer):
        grads = nnx.grad(lambda model: jnp.mean(model(x) ** 2), argnums=nnx.DiffState(0, head))(model)
        optimizer.update(model, grads, probe=capture.nnx_probe(model), samples=x)

    conv = np.asarray(model.conv.kernel[...])
    for _ in range(3):
        step(model, optimizer)
    assert int(cgalr_jax.metrics(optimizer)["cgalr/measurements"]) == 2
    np.testing.assert_array_equal(model.conv.kernel[...], conv)


def test_samples_are_an_argument_of_the_step_and_no_constant_of_it():
    model, x = NnxCnn(nnx.Rngs(0)), inputs(IMAGES)
    example = capture.example(capture.nnx_probe(model), model, x)
    tx = cgalr_jax.scale_by_connectome(example)

    def step(model, x):
        params = nnx.state(model, nnx.Param)
        return tx.update(params, tx.init(params), params, probe=capture.nnx_probe(model, x))[1].cg_scale

    graphdef, state = nnx.split(model)
    jaxpr = jax.make_jaxpr(lambda state, x: step(nnx.merge(graphdef, state), x))(state, x)
    assert all(np.size(constant) < x.size for constant in jaxpr.consts)


@pytest.mark.parametrize("layers", ["layers/0", nnx.Linear])
def test_a_layer_that_is_not_in_a_list_is_refused(layers):
    with pytest.raises(ValueError, match="layers must be a list of names and types, got .*(layers/0|Linear)"):
        capture.nnx_probe(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), layers=layers)


def test_a_model_of_the_other_api_is_refused():
    one, other = nnx.Linear(2, 3, rngs=nnx.Rngs(0)), linen.Dense(3)
    x = jnp.ones((4, 2))
    for wrong in (other, nnx.Linear):
        for build in (capture.nnx_probe, lambda model: capture.nnx_forward(model, x)):
            with pytest.raises(
                ValueError,
                match=r"model must be an instance of flax\.nnx\.Module, as in .*, got",
            ):
                build(wrong)
    for wrong in (one, linen.Dense):
        for build in (capture.linen_probe, lambda model: capture.linen_forward(model, {}, x)):
            with pytest.raises(
                ValueError,
                match=r"model must be an instance of flax\.linen\.Module, as in .*, got",
            ):
                build(wrong)
