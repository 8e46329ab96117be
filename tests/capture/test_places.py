"""Where a layer runs: what is sown there comes out whole and under its own name, or an error says why not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shared_scopes
from flax import linen, nnx

from cgalr_jax import capture

X = jax.random.normal(jax.random.key(0), (8, 3))


class Placed(linen.Module):
    """A layer in a place, and one behind it."""

    how: object

    def setup(self):
        self.p, self.q = linen.Dense(5), linen.Dense(5)
        self.hidden, self.out = linen.Dense(4), linen.Dense(2)

    def __call__(self, x):
        if self.is_initializing():
            self.p(x), self.q(x)
        return self.out(self.hidden(self.how(self, x)))


def branches(model, x):
    return linen.cond(x.sum() > 0, lambda m, x: m.p(x), lambda m, x: m.q(x), model, x)


LOST = {
    "jax.vmap": lambda model, x: jax.vmap(model.p)(x),
    "jax.grad": lambda model, x: jax.grad(lambda x: (model.p(x) ** 2).sum())(x),
    "jax.checkpoint": lambda model, x: jax.checkpoint(lambda x: model.p(x))(x),
    "jax.lax.map": lambda model, x: jax.lax.map(model.p, x),
    "jax.lax.cond": lambda model, x: jax.lax.cond(x.sum() > 0, lambda x: model.p(x), lambda x: model.q(x), x),
    "nn.cond": branches,
    "nn.cond around others": lambda model, x: linen.cond(
        x.sum() > 0, lambda m, x: model.p(x), lambda m, x: model.q(x), model, x
    ),
    "nn.switch": lambda model, x: linen.switch(0, [lambda m, x: m.p(x), lambda m, x: m.q(x)], model, x),
    "nn.while_loop": lambda model, x: linen.while_loop(
        lambda m, c: c[0] < 2, lambda m, c: (c[0] + 1, m.p(c[1][:, :3])), model, (0, jnp.tile(x, 2)[:, :5])
    )[1],
}


@pytest.mark.parametrize("place", LOST)
def test_a_linen_layer_out_of_whose_place_nothing_is_sown_is_named(place):
    model = Placed(LOST[place])
    params = model.init(jax.random.key(0), X)["params"]
    assert model.apply({"params": params}, X).shape == (8, 2)
    probe = capture.linen_probe(model)
    for run in (probe, jax.jit(probe)):
        with pytest.raises(ValueError, match=r"layers must be reachable, got 'p' inside .*nn.cond.*jax.vmap"):
            run(params, X)
    others = capture.linen_probe(model, layers=["hidden"])
    assert jax.tree.map(jnp.shape, jax.jit(others)(params, X)) == {"hidden": (8, 4)}


FOUND = {
    "nn.remat": lambda model, x: linen.remat(lambda m, x: m.p(x))(model, x),
    "nn.vjp": lambda model, x: linen.vjp(lambda m, x: m.p(x), model, x)[0],
    "nn.jvp": lambda model, x: linen.jvp(lambda m, x: m.p(x), model, (x,), (x,), variable_tangents={})[0],
}


@pytest.mark.parametrize("place", FOUND)
def test_a_linen_layer_that_flax_transforms_is_heard(place):
    model = Placed(FOUND[place])
    params = model.init(jax.random.key(0), X)["params"]
    found = jax.jit(capture.linen_probe(model))(params, X)
    assert set(found) == {"p", "hidden"}
    np.testing.assert_allclose(
        found["p"], X @ params["p"]["kernel"] + params["p"]["bias"], rtol=1e-5, atol=1e-6
    )


def test_a_forward_pass_inside_a_branch_of_another_model():
    inner = linen.Sequential([linen.Dense(5), linen.Dense(2)])
    variables = inner.init(jax.random.key(0), X)

    class Outer(linen.Module):
        @linen.compact
        def __call__(self, x):
            def measured(_, x):
                return capture.linen_forward(inner, variables, x)[1]["layers_0"]

            return linen.cond(True, measured, lambda _, x: jnp.zeros((8, 5)), self, x)

    expected = capture.linen_probe(inner)(variables["params"], X)["layers_0"]
    np.testing.assert_allclose(Outer().apply({}, X), expected, rtol=1e-6)


# --- Another model inside.


class Teacher(linen.Module):
    """Its layers have the names of the pupil's, and its statistics are its own."""

    @linen.compact
    def __call__(self, x):
        h = linen.BatchNorm(use_running_average=True)(linen.Dense(9, name="Dense_0")(x))
        return linen.Dense(3, name="Dense_1")(h)


class Pupil(linen.Module):
    teach: object = None

    @linen.compact
    def __call__(self, x):
        x = x if self.teach is None else self.teach(x)
        return linen.Dense(2, name="Dense_1")(linen.Dense(5, name="Dense_0")(x))


@pytest.mark.parametrize("where", ["forward", "model"])
@pytest.mark.parametrize("how", ["apply", "bind"])
def test_a_model_inside_that_has_its_own_variables_is_left_alone(where, how):
    frozen = Teacher().init(jax.random.key(1), X)
    bound = Teacher().bind(frozen)
    teach = bound if how == "bind" else lambda x: Teacher().apply(frozen, x)
    model = Pupil(teach if where == "model" and how == "apply" else None)
    forward = None if model.teach else (lambda model, x: model(teach(x)))
    params = model.init(jax.random.key(0), X)["params"]
    found = jax.jit(capture.linen_probe(model, forward=forward))(params, X)
    assert list(found) == ["Dense_0"]
    expected = Teacher().apply(frozen, X) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    np.testing.assert_allclose(found["Dense_0"], expected, rtol=1e-5, atol=1e-6)


# --- The scope of another module.


def test_layers_under_a_shared_scope_are_named_as_their_parameters():
    for model, names in (
        (shared_scopes.Outer(), ["shared/layers_0", "shared/layers_1"]),
        (shared_scopes.Shared(), ["layers_0"]),
    ):
        params = model.init(jax.random.key(0), X)["params"]
        assert list(capture.linen_probe(model)(params, X)) == names


# --- Stacked along another axis than the first.


class Block(linen.Module):
    @linen.compact
    def __call__(self, x, _=None):
        return linen.Dense(3)(x), None


@pytest.mark.parametrize("axes", [{"params": 0, "intermediates": 1}, {True: 1}])
def test_linen_layers_that_are_stacked_behind_the_samples_are_refused(axes):
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            scan = linen.scan(Block, variable_axes=axes, split_rngs={"params": True}, length=4)
            return linen.Dense(2)(scan(name="blocks")(x, None)[0])

    params = Net().init(jax.random.key(0), X)["params"]
    with pytest.raises(ValueError, match=r"in front, got 'blocks/Dense_0' of shape \(8, 4, 3\), \(8, 3\) in"):
        capture.linen_probe(Net())(params, X)


class Stacked(nnx.Module):
    """Four layers whose parameters are stacked along the second axis, and what they return as told."""

    def __init__(self, axis):
        everywhere = nnx.StateAxes({nnx.RngState: 0, ...: None})
        make = nnx.vmap(
            lambda rngs: nnx.Linear(3, 3, use_bias=False, rngs=rngs),
            in_axes=(everywhere,),
            out_axes=nnx.StateAxes({...: 1}),
        )
        self.blocks = nnx.split_rngs(splits=4)(make)(nnx.Rngs(0))
        self.out = nnx.Linear(3, 2, rngs=nnx.Rngs(1))
        self.axis = axis  # of what the modules sow

    def __call__(self, x):
        axes = nnx.StateAxes({nnx.Param: 1, ...: self.axis})
        scan = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, axes), out_axes=nnx.Carry)
        return self.out(scan(x, self.blocks))


def test_nnx_layers_that_are_stacked_behind_the_samples_are_refused():
    with pytest.raises(ValueError, match=r"in front, got 'blocks' of shape \(8, 4, 3\), \(8, 3\) inside"):
        capture.example(Stacked(1), X)
    found = capture.example(Stacked(0), X)
    assert jax.tree.map(jnp.shape, found) == {f"blocks/{i}": (8, 3) for i in range(4)}


# --- What is no layer, and parameters of another model.


@pytest.mark.parametrize("value", ["text", print])
@pytest.mark.parametrize("api", ["linen", "nnx"])
def test_a_sown_value_that_is_no_array_is_named(api, value):
    class Linen(linen.Module):
        @linen.compact
        def __call__(self, x):
            self.sow("intermediates", "told", value)
            return linen.Dense(2)(linen.Dense(5)(x))

    class Nnx(nnx.Module):
        def __init__(self):
            self.a, self.b = nnx.Linear(3, 5, rngs=nnx.Rngs(0)), nnx.Linear(5, 2, rngs=nnx.Rngs(1))

        def __call__(self, x):
            self.sow(nnx.Intermediate, "told", value)
            return self.b(self.a(x))

    model = Linen() if api == "linen" else Nnx()
    probe = (capture.linen_probe if api == "linen" else capture.nnx_probe)(model, layers=["told"])
    params = model.init(jax.random.key(0), X)["params"] if api == "linen" else nnx.state(model, nnx.Param)
    with pytest.raises(ValueError, match=r"layers must be arrays \[N, ..., F\], got 'told', which is "):
        probe(params, X)


def test_parameters_of_another_nnx_model_are_refused():
    def mlp():
        return nnx.Sequential(nnx.Linear(3, 5, rngs=nnx.Rngs(0)), nnx.Linear(5, 2, rngs=nnx.Rngs(1)))

    class Other(nnx.Module):
        def __init__(self):
            self.a = nnx.Linear(3, 5, rngs=nnx.Rngs(0))

    with pytest.raises(ValueError, match=r"params must be the parameters of this model, .*, got State"):
        capture.nnx_probe(mlp())(nnx.state(Other(), nnx.Param), X)
