"""Nothing that other models or threads use is touched, nothing stays behind, and no layer is lost."""

import threading
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from cgalr_jax import capture


def mlp(seed):
    rngs = nnx.Rngs(seed)
    return nnx.Sequential(nnx.Linear(3, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 2, rngs=rngs))


def run_together(*functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("how", ["nnx_probe", "nnx_forward", "linen_probe"])
def test_two_threads_in_the_middle_of_a_forward_pass(how):
    """The first thread enters first and leaves first: what either had put in place is in the other's way."""
    entered, left = [threading.Event(), threading.Event()], threading.Event()
    x, seen = jnp.ones((4, 3)), {}
    call = nnx.Linear.__call__

    def run(number):
        def forward(model, x):
            entered[number].set()
            entered[1 - number].wait(60)
            if number == 1:
                left.wait(60)
            return model(x)

        if how == "linen_probe":
            net = linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)])
            params = net.init(jax.random.key(number), x)["params"]
            seen[number] = list(capture.linen_probe(net, forward=forward)(params, x))
        elif how == "nnx_probe":
            model = mlp(number)
            seen[number] = list(capture.nnx_probe(model, forward=forward)(nnx.state(model, nnx.Param), x))
        else:
            seen[number] = list(capture.nnx_forward(mlp(number), x, forward=forward)[1])
        if number == 0:
            left.set()

    run_together(lambda: run(0), lambda: run(1))
    name = "layers_0" if how == "linen_probe" else "layers/0"
    assert seen == {0: [name], 1: [name]}
    assert nnx.Linear.__call__ is call


def test_a_model_that_is_being_run_already():
    model, x = mlp(0), jnp.ones((4, 3))

    def again(model, x):
        capture.nnx_probe(mlp(1))(nnx.state(mlp(1), nnx.Param), x)  # another model may run inside
        return capture.nnx_forward(model, x)[0]

    with pytest.raises(ValueError, match=r"^model must be run by one nnx_forward at a time, got .*layers/0"):
        capture.nnx_forward(model, x, forward=again)
    assert list(capture.nnx_forward(model, x)[1]) == ["layers/0"]
    assert type(model) is nnx.Sequential


def test_the_forward_pass_sees_the_classes_that_it_knows():
    registered = []

    class Registered(nnx.Module):
        def __init_subclass__(cls, *, kind, **kwargs):
            super().__init_subclass__(**kwargs)
            registered.append(cls)

    class Net(Registered, kind="of its own"):
        def __init__(self, rngs):
            self.inner = nnx.Linear(3, 5, rngs=rngs)
            self.out = nnx.Linear(5, 2, rngs=rngs)

        def __call__(self, x):
            assert isinstance(self, Net)
            assert isinstance(self.inner, nnx.Linear)
            assert type(self).__name__ == "Net"
            return self.out(self.inner(x))

    model = Net(nnx.Rngs(0))
    assert list(capture.nnx_forward(model, jnp.ones((4, 3)))[1]) == ["inner"]
    assert registered == [Net]


@nnx.jit
def compiled(model, x):
    return model(x)


def test_a_compiled_part_of_the_model_is_heard_each_time():
    """Its trace is kept from call to call, and yet no call is taken for another."""

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.inner = nnx.Linear(3, 3, rngs=rngs)
            self.out = nnx.Linear(3, 3, rngs=rngs)

        def __call__(self, x):
            return self.out(compiled(self.inner, x))

    model, x = Net(nnx.Rngs(0)), jnp.ones((4, 3))
    for _ in range(2):
        assert list(capture.nnx_forward(model, x)[1]) == ["inner"]
        assert list(capture.nnx_forward(model, x, logits=True)[1]) == ["inner", "out"]
        assert list(capture.nnx_forward(model, x, layers=["out"])[1]) == ["out"]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays_behind(fails):
    model, x = mlp(0), jnp.ones((4, 3))
    before, call = nnx.graphdef(model), nnx.Linear.__call__

    def forward(model, x):
        output = model(x)
        if fails:
            raise RuntimeError("mine")
        return output

    if fails:
        with pytest.raises(RuntimeError, match="mine"):
            capture.nnx_forward(model, x, forward=forward)
    else:
        capture.nnx_forward(model, x, forward=forward)
    assert nnx.graphdef(model) == before
    assert [type(module) for _, module in nnx.iter_modules(model)][-1] is nnx.Sequential
    assert nnx.Linear.__call__ is call


# --- names that are spelled alike


class NnxAlike(nnx.Module):
    def __init__(self, rngs):
        self.a = nnx.Sequential(nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 4, rngs=rngs))
        setattr(self, "a/layers/0", nnx.Linear(4, 5, rngs=rngs))
        self.out = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(getattr(self, "a/layers/0")(self.a(x)))


class NnxSown(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.out = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        x = self.hidden(x)
        self.sow(nnx.Intermediate, "hidden", x)
        return self.out(x)


class LinenInner(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3, name="b")(x)


class LinenAlike(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2, name="out")(linen.Dense(5, name="a/b")(LinenInner(name="a")(x)))


@pytest.mark.parametrize("kind", [NnxAlike, NnxSown, LinenAlike])
def test_two_layers_of_one_name_are_an_error_and_none_is_lost(kind):
    model, x = kind() if kind is LinenAlike else kind(nnx.Rngs(0)), jnp.ones((4, 3))
    name = {NnxAlike: "a/layers/0", NnxSown: "hidden", LinenAlike: "a/b"}[kind]
    run = (
        (lambda: capture.nnx_forward(model, x))
        if isinstance(model, nnx.Module)
        else (lambda: capture.linen_forward(model, model.init(jax.random.key(0), x), x))
    )
    with pytest.raises(ValueError, match=f"layers must have different names, got two called '{name}'"):
        run()


@linen.jit
class Compiled(linen.Module):
    """A class under jit: Flax keeps what it has traced."""

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(8)(x))
        return linen.Dense(8)(linen.Dropout(0.1, deterministic=not train)(x))


class AroundCompiled(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(Compiled(name="block")(x))


def test_a_trace_that_flax_has_kept_is_not_listened_to():
    net, x = AroundCompiled(), jax.random.normal(jax.random.key(0), (16, 5))
    variables = net.init(jax.random.key(1), x)
    for mutable in (["intermediates"], ["batch_stats", "intermediates"]):
        net.apply(variables, x, mutable=mutable)  # the user's own, before ours
    layers = {"block/Dense_0", "block/Dense_1"}
    for _ in range(2):
        assert set(capture.example(net, variables["params"], x)) == layers
        assert set(capture.linen_probe(net)(variables["params"], x)) == layers
        assert set(capture.linen_probe(net, layers=["block/Dense_1"])(variables["params"], x)) == {
            "block/Dense_1"
        }
        _, heard, changed = capture.linen_forward(net, variables, x, mutable=["intermediates", "batch_stats"])
        assert set(heard) == layers
        assert jax.tree.leaves(changed["intermediates"]) == []  # what we have sown is not the user's
        assert jax.tree.structure(changed["batch_stats"]) == jax.tree.structure(variables["batch_stats"])


def test_a_chosen_module_that_returns_no_array_is_named():
    class Silent(linen.Module):
        @linen.compact
        def __call__(self, x):
            linen.Dense(3)(x)

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            Silent()(x)
            return linen.Dense(4)(x)

    x = jnp.ones((4, 3))
    params = Net().init(jax.random.key(0), x)["params"]
    with pytest.raises(ValueError, match="layers must return an array .* got one that returns None"):
        capture.linen_probe(Net(), layers=[Silent])(params, x)


class Wrapped(nnx.Module):
    """A layer inside one of JAX's own transformations, or of Flax's."""

    def __init__(self, how):
        self.p, self.o = nnx.Linear(3, 8, rngs=nnx.Rngs(0)), nnx.Linear(8, 2, rngs=nnx.Rngs(1))
        self.how = how

    def __call__(self, x):
        return self.o(self.how(self.p, x))


@pytest.mark.parametrize(
    "how",
    [
        lambda layer, x: jax.checkpoint(lambda x: layer(x))(x),
        lambda layer, x: jax.vmap(layer)(x),
        lambda layer, x: jax.lax.map(layer, x),
        lambda layer, x: jax.jit(lambda x: layer(x))(x),
    ],
)
def test_a_layer_that_jax_itself_transforms_is_named(how):
    model, x = Wrapped(how), jnp.ones((4, 3))
    for run in (
        lambda: capture.example(model, x),
        lambda: capture.nnx_probe(model)(nnx.state(model, nnx.Param), x),
        lambda: jax.jit(capture.nnx_probe(model))(nnx.state(model, nnx.Param), x),
    ):
        with pytest.raises(ValueError, match="layers must be reachable, got 'p' inside a jax.vmap"):
            run()


@pytest.mark.parametrize("flax", [nnx.remat, nnx.jit])
def test_a_layer_that_flax_transforms_is_heard(flax):
    model = Wrapped(lambda layer, x: flax(lambda layer, x: layer(x))(layer, x))
    assert jax.tree.map(jnp.shape, capture.example(model, jnp.ones((4, 3)))) == {"p": (4, 8)}


class Critic(nnx.Module):
    def __init__(self):
        self.a, self.b, self.out = (
            nnx.Linear(n, m, rngs=nnx.Rngs(n)) for n, m in ((3, 32), (32, 64), (64, 1))
        )

    def __call__(self, x):
        features = jnp.tanh(self.b(jnp.tanh(self.a(x))))
        return self.out(features).squeeze(-1)


@pytest.mark.parametrize("samples", [1, 16, 32, 64])
def test_which_layers_there_are_does_not_depend_on_the_number_of_samples(samples):
    assert set(capture.example(Critic(), jnp.ones((samples, 3)))) == {"a", "b"}


def test_the_logits_are_left_out_beside_a_head_of_one_unit():
    class Actor(Critic):
        def __call__(self, x):
            features = jnp.tanh(self.a(x))
            return self.b(features), self.out(jnp.tanh(self.b(features)))

    assert set(capture.example(Actor(), jnp.ones((5, 3)))) == {"a"}


HEADS = {  # what a model makes of the logits and of the one unit of its other head
    "two outputs": lambda logits, value: (logits, value),
    "value squeezed": lambda logits, value: (logits, value.squeeze(-1)),
    "value summed": lambda logits, value: (value.sum(-1), logits),
    "by name": lambda logits, value: {"policy": logits, "value": value[..., 0]},
    "dueling": lambda logits, value: value + logits - logits.mean(-1, keepdims=True),
}


class NnxHeads(nnx.Module):
    def __init__(self, heads, value_last, rngs):
        self.heads, self.value_last = heads, value_last
        self.body = nnx.Linear(3, 7, rngs=rngs)
        self.policy = nnx.Linear(7, 4, rngs=rngs)
        self.value = nnx.Linear(7, 1, rngs=rngs)

    def __call__(self, x):
        h = jnp.tanh(self.body(x))
        order = (self.policy, self.value) if self.value_last else (self.value, self.policy)
        found = {head: head(h) for head in order}
        return self.heads(found[self.policy], found[self.value])


class LinenHeads(linen.Module):
    heads: Callable
    value_last: bool

    @linen.compact
    def __call__(self, x):
        h = jnp.tanh(linen.Dense(7, name="body")(x))
        widths = {"policy": 4, "value": 1}
        order = widths if self.value_last else reversed(widths)
        found = {name: linen.Dense(widths[name], name=name)(h) for name in order}
        return self.heads(found["policy"], found["value"])


@pytest.mark.parametrize("value_last", [True, False])
@pytest.mark.parametrize("heads", HEADS)
def test_a_head_of_one_unit_does_not_hide_the_logits(heads, value_last):
    x = jnp.ones((5, 3))
    assert set(capture.example(NnxHeads(HEADS[heads], value_last, nnx.Rngs(0)), x)) == {"body"}
    net = LinenHeads(HEADS[heads], value_last)
    params = jax.eval_shape(net.init, jax.random.key(0), x)["params"]
    assert set(capture.example(net, params, x)) == {"body"}


@pytest.mark.parametrize("others", [(4,), (1,)])
def test_calls_of_other_numbers_of_samples_are_pooled_side_by_side(others):
    class Shared(linen.Module):
        @linen.compact
        def __call__(self, x):
            dense = linen.Dense(5, name="dense")
            return [dense(x).sum(), dense(x[: others[0]]).sum()]

    net, x = Shared(), jnp.ones((8, 2, 3))
    params = net.init(jax.random.key(0), x)["params"]
    found = capture.linen_probe(net, pooled=True, layers=["dense"])(params, x)
    assert found["dense"].shape == (8 + others[0], 5)


def test_a_complex_layer_is_pooled_as_it_is():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(5, param_dtype=jnp.complex64, dtype=jnp.complex64, name="dense")(x).sum()

    x = jnp.ones((8, 2, 3), jnp.complex64)
    params = Net().init(jax.random.key(0), x)["params"]
    assert capture.linen_probe(Net(), pooled=True)(params, x)["dense"].dtype == jnp.complex64


def test_modules_that_a_pattern_cannot_mean_are_left_alone():
    class Model(nnx.Module):
        def __init__(self):
            self.enc0, self.enc1, self.dec = (nnx.Linear(3, 3, rngs=nnx.Rngs(n)) for n in range(3))

        def __call__(self, x):
            return jax.checkpoint(lambda y: self.dec(y))(self.enc1(self.enc0(x)))

    for pattern, found in (("enc*", {"enc0", "enc1"}), ("*0", {"enc0"})):
        assert set(capture.example(Model(), jnp.ones((4, 3)), layers=[pattern])) == found


def test_calls_of_different_lengths_are_pooled_each():
    class Shared(nnx.Module):
        def __init__(self):
            self.p, self.o = nnx.Linear(3, 8, rngs=nnx.Rngs(0)), nnx.Linear(8, 2, rngs=nnx.Rngs(1))

        def __call__(self, x):
            return self.o(self.p(x).mean(1) + self.p(x[:, :3]).mean(1))

    model, x = Shared(), jax.random.normal(jax.random.key(0), (4, 5, 3))
    _, pooled = capture.nnx_forward(model, x, pooled=True)
    right = (model.p(x).mean(1) + model.p(x[:, :3]).mean(1)) / 2
    np.testing.assert_allclose(pooled["p"], right, rtol=1e-5)


def test_the_samples_of_a_time_major_layer_are_its_second_axis():
    class Recurrent(nnx.Module):
        def __init__(self):
            self.r = nnx.RNN(nnx.GRUCell(3, 8, rngs=nnx.Rngs(0)), time_major=True)
            self.o = nnx.Linear(8, 2, rngs=nnx.Rngs(1))

        def __call__(self, x):
            return self.o(self.r(x)[-1])

    class Called(nnx.Module):
        def __init__(self, made, called):
            self.r = nnx.RNN(nnx.GRUCell(3, 8, rngs=nnx.Rngs(0)), time_major=made)
            self.o, self.called = nnx.Linear(8, 2, rngs=nnx.Rngs(1)), called

        def __call__(self, x):
            return self.o(self.r(x, time_major=self.called)[:, -1])

    model, x = Recurrent(), jax.random.normal(jax.random.key(0), (5, 4, 3))
    assert capture.example(Called(False, True), x)["r"].shape == (4, 5, 8)
    assert capture.example(Called(True, False), x)["r"].shape == (5, 4, 8)
    assert capture.example(model, x)["r"].shape == (4, 5, 8)
    _, pooled = capture.nnx_forward(model, x, pooled=True)
    np.testing.assert_allclose(pooled["r"], model.r(x).mean(0), rtol=1e-5)


def test_a_narrow_layer_is_pooled_in_float32():
    model = nnx.Sequential(
        nnx.Conv(1, 4, (3, 3), dtype=jnp.bfloat16, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(1))
    )
    x = jax.random.normal(jax.random.key(0), (8, 12, 12, 1))
    _, pooled = capture.nnx_forward(model, x, pooled=True)
    _, whole = capture.nnx_forward(model, x)
    assert pooled["layers/0"].dtype == jnp.float32
    np.testing.assert_allclose(
        pooled["layers/0"], whole["layers/0"].astype(jnp.float32).mean((1, 2)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("pattern", ["block/hidden", "*/hidden", "*hidden", "b*n", "block?hidden"])
def test_a_pattern_may_cross_the_slash_before_a_sown_value(pattern):
    class Block(nnx.Module):
        def __init__(self):
            self.l = nnx.Linear(3, 8, rngs=nnx.Rngs(0))

        def __call__(self, x):
            self.sow(nnx.Intermediate, "hidden", hidden := self.l(x))
            return hidden

    class Top(nnx.Module):
        def __init__(self):
            self.block, self.o = Block(), nnx.Linear(8, 2, rngs=nnx.Rngs(1))

        def __call__(self, x):
            return self.o(self.block(x))

    assert set(capture.example(Top(), jnp.ones((4, 3)), layers=[pattern])) == {"block/hidden"}


def test_a_trained_variable_of_another_kind_moves():
    class Scale(nnx.Variable):
        pass

    class Scaled(nnx.Module):
        def __init__(self):
            self.p, self.o = nnx.Linear(3, 8, rngs=nnx.Rngs(0)), nnx.Linear(8, 2, rngs=nnx.Rngs(1))
            self.g = Scale(jnp.float32(1.0))

        def __call__(self, x):
            return self.o(self.p(x * self.g.get_value()))

    model, x = Scaled(), jnp.ones((4, 3))
    stored, trained = capture.nnx_samples(model, x), nnx.state(model, nnx.Any(nnx.Param, Scale))
    moved = jax.tree.map(lambda leaf: leaf, trained)
    moved["g"].set_value(jnp.float32(5.0))
    probe = capture.nnx_probe(model)
    assert not np.allclose(probe(moved, stored)["p"], probe(trained, stored)["p"])
