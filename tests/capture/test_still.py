"""Two readings differ by the parameters and by nothing else, for each API and each way to measure."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from light import ECHO

import cgalr_jax
from cgalr_jax import capture, signals

X = jax.random.normal(jax.random.key(1), (8, 5))


# --- models in which more moves than the parameters


class OwnNorm(linen.BatchNorm):
    """A user's class, which says to its base what it wants."""

    @linen.compact
    def __call__(self, x):
        return super().__call__(x, use_running_average=True)


class LinenCall(linen.Module):
    @linen.compact
    def __call__(self, x, train=True):
        x = linen.BatchNorm(name="norm")(linen.Dense(5)(x), use_running_average=not train)
        x = linen.Dropout(0.5)(x, not train)
        attention = linen.MultiHeadDotProductAttention(1, dropout_rate=0.5)
        x = attention(x[:, None], deterministic=not train)[:, 0]
        x = x + jax.random.normal(self.make_rng("noise"), x.shape)
        x = linen.SpectralNorm(linen.Dense(5))(x, update_stats=train)
        return linen.Dense(2)(linen.Dense(5)(x))


class LinenAttribute(linen.Module):
    train: bool = True
    norm: linen.Module = linen.BatchNorm(use_running_average=True)

    @linen.compact
    def __call__(self, x):
        x = OwnNorm()(linen.Dense(5)(self.norm(x)))
        x = linen.remat(linen.BatchNorm)(use_running_average=not self.train)(x)
        x = linen.Dropout(0.5, deterministic=not self.train)(x)
        return linen.Dense(2)(linen.Dense(5)(x))


class LinenSetup(linen.Module):
    def setup(self):
        self.norm, self.dense, self.out = (
            linen.BatchNorm(True, axis_name="no axis"),
            linen.Dense(5),
            linen.Dense(2),
        )

    def __call__(self, x):
        return self.out(self.dense(self.norm(x)))


class LinenBlock(linen.Module):
    @linen.compact
    def __call__(self, x, _):
        return linen.BatchNorm(use_running_average=True)(linen.Dense(5)(x)), None


class LinenScanned(linen.Module):
    @linen.compact
    def __call__(self, x):
        axes = {"params": 0, "batch_stats": 0, "intermediates": 0}
        scan = linen.scan(LinenBlock, variable_axes=axes, split_rngs={"params": True}, length=2)
        return linen.Dense(2)(scan()(x, None)[0])


class NnxOwnNorm(nnx.BatchNorm):
    def __call__(self, x):
        return super().__call__(x, use_running_average=True)


class NnxNet(nnx.Module):
    def __init__(self, rngs, axis_name=None):
        self.first, self.second = nnx.Linear(5, 5, rngs=rngs), nnx.Linear(5, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, axis_name=axis_name, rngs=rngs)
        self.own = NnxOwnNorm(5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(1, 5, dropout_rate=0.5, decode=False, rngs=rngs)
        self.spectral = nnx.SpectralNorm(nnx.Linear(5, 5, rngs=rngs), rngs=rngs)
        self.third, self.out = nnx.Linear(5, 5, rngs=rngs), nnx.Linear(5, 2, rngs=rngs)
        self.rngs = rngs.fork()

    def __call__(self, x, train=True):
        x = self.norm(self.first(x), not train)
        x = self.dropout(self.own(self.second(x)), deterministic=not train)
        x = self.attention(x[:, None], deterministic=not train)[:, 0]
        x = x + jax.random.normal(self.rngs.noise(), x.shape)
        return self.out(self.third(self.spectral(x, train)))


class NnxScanned(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=2)
        @nnx.vmap
        def create(rngs):
            return nnx.Sequential(nnx.Linear(5, 5, rngs=rngs), nnx.BatchNorm(5, rngs=rngs))

        self.blocks, self.out = create(rngs), nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def run(block, x):
            return nnx.remat(lambda block, x: block(x))(block, x)

        return self.out(run(self.blocks, x))


def moved(variables):
    """As after some training: everything but the parameters is another."""
    return jax.tree.map(lambda x: 2 * x + 1, {key: x for key, x in variables.items() if key != "params"})


def differ(a, b):
    return any(bool(jnp.any(x != y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def same(a, b):
    assert list(a) == list(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


LINEN = {
    "call, training": (LinenCall(), lambda model, x: model(x, train=True)),
    "call, evaluation": (LinenCall(), lambda model, x: model(x, train=False)),
    "attribute, training": (LinenAttribute(True), None),
    "attribute, evaluation": (LinenAttribute(False), None),
    "setup": (LinenSetup(), None),
    "scan": (LinenScanned(), None),
}


# Each model once with its samples fixed or as an argument; the other of the two is slow.
@pytest.mark.parametrize(
    ("name", "fixed"),
    [
        pytest.param(name, fixed, marks=() if fixed == number % 2 else pytest.mark.slow)
        for number, name in enumerate(LINEN)
        for fixed in (False, True)
    ],
)
def test_linen_probe_reads_no_statistics_and_no_keys(name, fixed):
    model, forward = LINEN[name]
    rngs = {name: jax.random.key(0) for name in ("params", "noise", "dropout")}
    variables = model.init(rngs, X)
    builder, call = (X, ()) if fixed else (None, (X,))
    found = [
        capture.linen_probe(model, others, builder, forward=forward)(variables["params"], *call)
        for others in (variables, moved(variables), None)
    ]
    same(found[0], found[1])
    if model != LinenCall():  # without its vector SpectralNorm starts from another constant
        same(found[0], found[2])
    other = jax.tree.map(lambda p: p + 0.1, variables["params"])
    assert differ(found[0], capture.linen_probe(model, None, builder, forward=forward)(other, *call))


@pytest.mark.parametrize("name", ["call", "attribute"])
def test_linen_probe_of_both_modes_is_one(name):
    a, b = (LINEN[f"{name}, {mode}"] for mode in ("training", "evaluation"))
    variables = a[0].init({name: jax.random.key(0) for name in ("params", "noise", "dropout")}, X)
    first, second = (
        capture.linen_probe(model, forward=forward)(variables["params"], X) for model, forward in (a, b)
    )
    same(first, second)


def test_linen_probe_normalises_by_its_own_samples():
    """Against the same computed by hand; the model itself keeps its attributes."""
    model = LinenSetup()
    params = jax.tree.map(lambda p: p + 0.1, model.init(jax.random.key(0), X)["params"])
    x = (X - X.mean(0)) / jnp.sqrt(X.var(0) + 1e-5) * params["norm"]["scale"] + params["norm"]["bias"]
    expected = x @ params["dense"]["kernel"] + params["dense"]["bias"]
    np.testing.assert_allclose(capture.linen_probe(model)(params, X)["dense"], expected, rtol=1e-4, atol=1e-5)
    shared = LinenAttribute()
    capture.linen_probe(shared)(shared.init(jax.random.key(0), X)["params"], X)
    assert shared.norm.use_running_average is True


@pytest.mark.parametrize("kind", ["method", "attribute"])
def test_nnx_probe_of_a_model_that_uses_the_name_eval_otherwise(kind):
    class Net(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.dense, self.out = nnx.Linear(5, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            if kind == "attribute":
                self.eval = True

        def __call__(self, x):
            return self.out(self.dense(self.drop(x)))

        def eval(self, x, y):
            return ((self(x) - y) ** 2).mean()

    model = Net()
    found = capture.nnx_probe(model)(nnx.state(model, nnx.Param), X)
    np.testing.assert_allclose(found["dense"], model.dense(X), rtol=1e-6)


def nnx_moved(model):
    """Another model with the same parameters."""
    other = nnx.clone(model)
    there = nnx.state(other, nnx.Not(nnx.Any(nnx.Param, nnx.RngKey)))
    nnx.update(other, jax.tree.map(lambda x: 2 * x + 1, there))
    nnx.reseed(other, params=5, default=6)
    return other


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("kind", [NnxNet, NnxScanned])
def test_nnx_probe_reads_no_statistics_and_no_keys(kind, fixed):
    model = kind(nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    builder, call = (X, ()) if fixed else (None, (X,))
    other = nnx_moved(model)
    assert differ(nnx.state(model, nnx.BatchStat), nnx.state(other, nnx.BatchStat))
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(other, nnx.BatchStat)))
    other.eval()
    first = capture.nnx_probe(model, builder)(params, *call)
    same(first, capture.nnx_probe(other, builder)(params, *call))
    same(before, jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(other, nnx.BatchStat))))
    changed = jax.tree.map(lambda p: p + 0.1, params)
    assert differ(first, capture.nnx_probe(model, builder)(changed, *call))


def test_nnx_probe_of_both_modes_is_one():
    model = NnxNet(nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    first, second = (
        capture.nnx_probe(model, forward=lambda model, x, train=train: model(x, train))(params, X)
        for train in (False, True)
    )
    same(first, second)


@pytest.mark.parametrize("api", ["nnx", "linen"])
def test_batch_of_all_devices_where_the_axis_is_there(api):
    """Halves of a batch on a mapped axis are normalised as the whole; outside of it the shapes are known."""
    if api == "nnx":
        model = nnx.Sequential(
            nnx.BatchNorm(5, axis_name="batch", rngs=nnx.Rngs(0)),
            nnx.Linear(5, 4, rngs=nnx.Rngs(1)),
            nnx.Linear(4, 2, rngs=nnx.Rngs(2)),
        )
        probe, params = capture.nnx_probe(model), nnx.state(model, nnx.Param)
    else:
        net = linen.Sequential([linen.BatchNorm(True, axis_name="batch"), linen.Dense(4), linen.Dense(2)])
        probe, params = capture.linen_probe(net), net.init(jax.random.key(0), X)["params"]
    halves = jax.vmap(lambda x: probe(params, x), axis_name="batch")(X.reshape(2, 4, 5))
    ((name, whole),) = probe(params, X).items()
    np.testing.assert_allclose(halves[name].reshape(8, -1), whole, rtol=1e-4, atol=1e-5)
    assert capture.example(probe, params, X)[name].shape == (8, 4)


# --- a user's own moving average travels with the samples


class Average(nnx.Variable):
    pass


class NnxCentred(nnx.Module):
    def __init__(self, rngs):
        self.first, self.out = nnx.Linear(5, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)
        self.average = Average(jnp.zeros(5))

    def __call__(self, x):
        self.average[...] = 0.9 * self.average[...] + 0.1 * x.mean(0)
        return self.out(nnx.relu(self.first(x - self.average[...])))


class LinenCentred(linen.Module):
    @linen.compact
    def __call__(self, x):
        average = self.variable("averages", "x", jnp.zeros, (5,))
        average.value = 0.9 * average.value + 0.1 * x.mean(0)
        return linen.Dense(2)(linen.relu(linen.Dense(4)(x - average.value)))


@pytest.mark.parametrize("api", ["nnx", "linen"])
def test_variables_travel_with_the_samples(api):
    if api == "nnx":
        early, late = NnxCentred(nnx.Rngs(0)), NnxCentred(nnx.Rngs(0))
        late.average[...] = jnp.ones(5)
        params, samples = nnx.state(early, nnx.Param), capture.nnx_samples(early, X)
        build = capture.nnx_probe
    else:
        net = LinenCentred()
        variables = net.init(jax.random.key(0), X)
        early, late = {"averages": {"x": jnp.zeros(5)}}, {"averages": {"x": jnp.ones(5)}}
        params, samples = variables["params"], capture.linen_samples(early, X)
        build = lambda others, samples=None: capture.linen_probe(net, others, samples)  # noqa: E731
    assert differ(build(early)(params, X), build(late)(params, X))
    same(build(early)(params, X), build(late)(params, samples))
    same(build(early)(params, X), build(late, samples)(params))


@pytest.mark.parametrize("api", ["nnx", "linen"])
def test_nothing_moves_where_the_parameters_stand_still(api):
    """Steps of size nought while the averages go on moving: the optimizer measures a distance of nought."""

    def distance(samples_of):
        if api == "nnx":
            model = NnxCentred(nnx.Rngs(0))
            build, params = (lambda: capture.nnx_probe(model)), nnx.state(model, nnx.Param)
            advance = lambda x: model(x)  # noqa: E731
            others = lambda: model  # noqa: E731
        else:
            net, collections = LinenCentred(), {"averages": {"x": jnp.zeros(5)}}
            params = net.init(jax.random.key(0), X)["params"]
            build = lambda: capture.linen_probe(net, collections)  # noqa: E731

            def advance(x):
                variables = {"params": params, **collections}
                collections.update(net.apply(variables, x, mutable=["averages"])[1])

            others = lambda: collections  # noqa: E731
        x = samples_of(others(), X)
        example, signal = capture.example(build(), params, x), signals.frobenius()
        tx = cgalr_jax.scale_by_connectome(
            example,
            samples=x,
            every=1,
            signal=signal,
            controller=ECHO,
            max_share=None,  # with a bound, updates of nought are seen, and nothing is measured
        )
        state, zeros = tx.init(params), optax.tree.zeros_like(params)
        for number in range(3):
            batch = X + number
            advance(batch)
            state = tx.update(zeros, state, params, probe=build(), samples=samples_of(others(), batch))[1]
        return float(cgalr_jax.metrics(state)["cgalr/distance"])

    assert distance({"nnx": capture.nnx_samples, "linen": capture.linen_samples}[api]) == 0
    assert distance(lambda others, x: x) > 0


# --- from a base rate that is 100 times too small


@pytest.mark.slow
@pytest.mark.parametrize("api", ["nnx", "linen"])
def test_a_network_with_batch_norm_learns(api):
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    images = jnp.asarray(images.reshape(-1, 8, 8, 1) / 16, jnp.float32)
    labels = jnp.asarray(labels)
    test, steps = slice(1400, None), 400
    schedule = optax.cosine_decay_schedule(1e-3, steps)
    loss_of = lambda logits, y: optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()  # noqa: E731

    def optimizer(example, samples):
        controller = cgalr_jax.calibrated(schedule)
        block = cgalr_jax.scale_by_connectome(example, samples=samples, every=5, controller=controller)
        return optax.chain(optax.sgd(schedule, momentum=0.9), block)

    batches = [np.random.default_rng(step).choice(1400, 32, replace=False) for step in range(steps)]
    if api == "nnx":
        rngs = nnx.Rngs(0)
        model = nnx.Sequential(
            nnx.Conv(1, 8, (3, 3), strides=2, rngs=rngs),
            nnx.BatchNorm(8, rngs=rngs),
            nnx.relu,
            lambda x: x.reshape(len(x), -1),
            nnx.Linear(128, 32, rngs=rngs),
            nnx.BatchNorm(32, rngs=rngs),
            nnx.relu,
            nnx.Linear(32, 10, rngs=rngs),
        )
        samples = images[:32]
        tx = optimizer(capture.example(capture.nnx_probe(model), model, samples), samples)
        state = nnx.Optimizer(model, tx, wrt=nnx.Param)

        @nnx.jit
        def step(model, state, x, y):
            grads = nnx.grad(lambda model: loss_of(model(x), y))(model)
            state.update(model, grads, probe=capture.nnx_probe(model), samples=x)

        for batch in batches:
            step(model, state, images[batch], labels[batch])
        model.eval()
        logits = model(images[test])
    else:

        class Net(linen.Module):
            @linen.compact
            def __call__(self, x, train=True):
                norm = lambda: linen.BatchNorm(use_running_average=not train)  # noqa: E731
                x = linen.relu(norm()(linen.Conv(8, (3, 3), strides=2)(x)))
                x = linen.relu(norm()(linen.Dense(32)(x.reshape(len(x), -1))))
                return linen.Dense(10)(x)

        class State(capture.TrainState):
            batch_stats: dict

        net, samples = Net(), images[:32]
        variables = net.init(jax.random.key(0), samples)
        tx = optimizer(capture.example(capture.linen_probe(net), variables["params"], samples), samples)
        state = State.create(apply_fn=net.apply, tx=tx, **variables)

        @jax.jit
        def linen_step(state, x, y):
            def loss(params):
                variables = {"params": params, "batch_stats": state.batch_stats}
                logits, changed = net.apply(variables, x, mutable=["batch_stats"])
                return loss_of(logits, y), changed

            grads, changed = jax.grad(loss, has_aux=True)(state.params)
            return state.apply_gradients(grads=grads, probe=capture.linen_probe(net), samples=x, **changed)

        for batch in batches:
            state = linen_step(state, images[batch], labels[batch])
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits = net.apply(variables, images[test], train=False)
    assert float(jnp.mean(logits.argmax(1) != labels[test])) < 0.1
