"""What capture needs of Flax beyond its public API, each by itself: which part a new Flax has changed."""

import sys
import traceback

import jax
import jax.numpy as jnp
import pytest
import shared_scopes
from flax import linen, nnx

from cgalr_jax.capture import _flax

pytestmark = pytest.mark.smoke

X = jnp.ones((4, 3))


# --- both: attributes that Flax does not note


class Marked(nnx.Module):
    """Tells what it finds on itself."""

    def __init__(self):
        self.weight = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        return x * self.weight + self.mark.value


class Mark:
    """No array, and equal to itself only, as our listener is."""

    value = 2.0


COPIED = {
    "merge": lambda model, x: nnx.merge(*nnx.split(model))(x),
    "nnx.jit": lambda model, x: nnx.jit(lambda model, x: model(x))(model, x),
    "nnx.remat": lambda model, x: nnx.remat(lambda model, x: model(x))(model, x),
    "nnx.vmap": lambda model, x: nnx.vmap(lambda model, x: model(x), in_axes=(None, 0))(model, x),
    "nnx.scan": lambda model, x: nnx.scan(
        lambda x, model: model(x), length=1, in_axes=(nnx.Carry, None), out_axes=nnx.Carry
    )(x, model),
}


@pytest.mark.parametrize("place", COPIED)
def test_an_attribute_that_nnx_has_not_noted_is_static_and_is_copied(place):
    model = Marked()
    before = jax.tree.structure(nnx.state(model))
    _flax.set_attribute(model, "mark", Mark())
    assert jax.tree.structure(nnx.state(model)) == before
    assert jnp.array_equal(COPIED[place](model, X), X + 2)
    del model.mark
    assert nnx.graphdef(model) == nnx.graphdef(Marked())


def test_nnx_does_not_refuse_an_attribute_inside_a_transformation_of_jax():
    model = Marked()

    def inside(x):
        _flax.set_attribute(model, "mark", Mark())
        return model(x)

    assert jnp.array_equal(jax.vmap(inside)(X), X + 2)


def test_linen_does_not_refuse_an_attribute_of_a_bound_module_and_reads_it():
    def off(method, args, kwargs, context):
        _flax.set_attribute(context.module, "deterministic", True)
        return method(*args, **kwargs)

    model = linen.Dropout(0.5, deterministic=False)
    with linen.intercept_methods(off):
        assert jnp.array_equal(model.apply({}, X), X)  # and asks for no random key
    assert model.deterministic is False  # `apply` has made a module of its own


# --- nnx: captures


class Sow(nnx.Module):
    def __call__(self, x):
        self.sow(nnx.Intermediate, "out", x)
        return x


def test_captures_are_the_one_attribute_that_is_added_for_the_call():
    model = Sow()
    before = set(vars(model))

    def run(model, x):
        assert set(vars(model)) == before | {_flax.CAPTURES}
        assert model.sow(nnx.Intermediate, "kept", x)
        delattr(model, _flax.CAPTURES)
        assert set(vars(model)) == before

    _, captured = nnx.capture(run, nnx.Intermediate)(model, X)
    assert not captured  # what was sown went with the attribute
    _, captured = nnx.capture(lambda model, x: model(x), nnx.Intermediate)(model, X)
    assert list(captured) == ["out"]
    assert set(vars(model)) == before


def test_a_list_does_without_captures_and_then_its_state_can_be_sorted():
    def run(model, x):
        _flax.drop_captures_of_lists(model)
        lists = [isinstance(module, nnx.List) for _, module in nnx.iter_modules(model)]
        holders = [_flax.CAPTURES in vars(module) for _, module in nnx.iter_modules(model)]
        assert sorted(lists) == [False, False, True]
        assert holders == [not each for each in lists]
        return nnx.remat(lambda model, x: model[1](x))(model, x)

    _, captured = nnx.capture(run, nnx.Intermediate)(nnx.List([Sow(), Sow()]), X)
    assert nnx.to_pure_dict(captured).keys() == {1}


REFUSED = {
    "cond": lambda a, b, x: nnx.cond(True, lambda a, b: a(x), lambda a, b: b(x), a, b),
    "switch": lambda a, b, x: nnx.switch(jnp.int32(1), [lambda a, b: a(x), lambda a, b: b(x)], a, b),
    "fori_loop": lambda a, b, x: nnx.fori_loop(0, 3, lambda i, held: (held[0], held[0](held[1])), (a, x)),
    "while_loop": lambda a, b, x: nnx.while_loop(
        lambda held: held[1].sum() < 0, lambda held: (held[0], held[0](held[1])), (a, x)
    ),
    "scan": lambda a, b, x: nnx.scan(
        lambda held, _: (held[0], held[0](held[1])), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry
    )((a, x), jnp.arange(3)),
    "vmap": lambda a, b, x: nnx.vmap(lambda a, x: a(x), in_axes=(None, 0))(a, x),
}


@pytest.mark.parametrize("name", REFUSED)
def test_flax_refuses_captures_that_differ_by_name_and_the_traceback_tells_where(name):
    def run(model, x):
        a, b = model
        return REFUSED[name](a, b, x)

    with pytest.raises((TypeError, ValueError)) as error:
        nnx.capture(run, nnx.Intermediate)(nnx.List([Sow(), Sow()]), X)
    # The words about nnx.while_loop are JAX's.
    assert _flax.is_of_captures(error.value) == (name != "while_loop" or jax.__version_info__ >= (0, 10, 2))
    around = _flax.nnx_transforms(traceback.walk_tb(error.value.__traceback__))
    assert around[-1] == f"nnx.{name}"


def test_an_error_of_something_else_is_not_of_captures():
    with pytest.raises(TypeError) as error:
        nnx.Linear(3, 3, rngs=nnx.Rngs(0))(X[:, :2])
    assert not _flax.is_of_captures(error.value)


# --- nnx: where a module runs

GRAPH = {"graph": True}
TREE = {"graph": False}
AROUND = {  # a transformation around a call, and what it is called
    "cond": ("nnx.cond", lambda run, x, **how: nnx.cond(True, run, run, x, **how)),
    "switch": ("nnx.switch", lambda run, x, **how: nnx.switch(jnp.int32(0), [run, run], x, **how)),
    "fori_loop": ("nnx.fori_loop", lambda run, x, **how: nnx.fori_loop(0, 1, lambda i, x: run(x), x, **how)),
    "while_loop": (
        "nnx.while_loop",
        lambda run, x, **how: nnx.while_loop(lambda x: x.sum() < 0, run, x, **how),
    ),
    "scan": (
        "nnx.scan",
        lambda run, x, **how: nnx.scan(run, length=1, in_axes=nnx.Carry, out_axes=nnx.Carry, **how)(x),
    ),
    "vmap": ("nnx.vmap", lambda run, x, **how: nnx.vmap(run, **how)(x)),
}


@pytest.mark.parametrize("how", [GRAPH, TREE], ids=["graph", "tree"])
@pytest.mark.parametrize("place", AROUND)
def test_the_stack_tells_the_transformations_of_nnx(place, how):
    heard = []

    def run(x):
        heard.append(_flax.nnx_transforms(traceback.walk_stack(sys._getframe())))
        return x

    name, around = AROUND[place]
    around(run, X, **how)
    assert heard[0] == [name]
    around(lambda x: nnx.remat(nnx.jit(run))(x), X, **how)
    assert heard[-1] == [name]


@pytest.mark.parametrize(("how", "name"), [(GRAPH, "nnx.vmap"), (TREE, "nnx.pmap")], ids=["graph", "tree"])
def test_the_stack_tells_a_pmap(how, name):
    heard = []

    def run(x):
        heard.append(_flax.nnx_transforms(traceback.walk_stack(sys._getframe())))
        return x

    nnx.pmap(run, **how)(X[None])
    assert heard[0] == [name]


class Asking(nnx.Module):
    """Asks whether it runs where it was made, and hands on."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, x):
        self.answer(_flax.is_in_own_trace(self))
        return x


OWN = {
    "plain": lambda model, x: model(x),
    "nnx.jit": lambda model, x: nnx.jit(lambda model, x: model(x))(model, x),
    "nnx.remat": lambda model, x: nnx.remat(lambda model, x: model(x))(model, x),
    "nnx.vmap": lambda model, x: nnx.vmap(lambda model, x: model(x), in_axes=(None, 0))(model, x),
    "made inside": lambda model, x: jax.jit(lambda x: Asking(model.answer)(x))(x),
}
OTHER = {
    "jax.jit": lambda model, x: jax.jit(lambda x: model(x))(x),
    "jax.vmap": lambda model, x: jax.vmap(lambda x: model(x))(x),
    "jax.grad": lambda model, x: jax.grad(lambda x: model(x).sum())(x),
    "jax.checkpoint": lambda model, x: jax.checkpoint(lambda x: model(x))(x),
    "jax.lax.map": lambda model, x: jax.lax.map(lambda x: model(x), x),
}


@pytest.mark.parametrize("place", [*OWN, *OTHER])
def test_an_nnx_module_knows_whether_it_runs_where_it_was_made(place):
    answers = []
    (OWN | OTHER)[place](Asking(answers.append), X)
    assert answers == [place in OWN]


# --- nnx: a class of its own


@pytest.mark.parametrize("pytree", [True, False])
def test_a_derived_class_is_registered_as_the_own_one_and_that_one_is_not_asked(pytree):
    asked = []

    class Own(nnx.Module, pytree=pytree):
        def __init_subclass__(cls, *, kind):
            asked.append(cls)

        def __init__(self):
            self.weight = nnx.Param(jnp.ones(()))

    class Base(nnx.Module):
        def __init_subclass__(cls):
            _flax.register(cls, Own)

    class Derived(Base, Own):
        pass

    model = Own()
    _flax.set_attribute(model, "__class__", Derived)
    copy = nnx.merge(*nnx.split(model))
    assert type(copy) is Derived
    assert list(nnx.to_pure_dict(nnx.state(copy))) == ["weight"]
    assert asked == []
    assert [jax.tree_util.all_leaves([each]) for each in (model, Own())] == [not pytree] * 2


# --- linen


class Inside(linen.Module):
    """A layer, to be called in a place."""

    how: object

    def setup(self):
        self.p = linen.Dense(3)

    def __call__(self, x):
        return self.p(x) if self.is_initializing() else self.how(self, x)


def ask(how, question):
    """What each layer called in a place answers."""
    model = Inside(how)
    return answers_of(model, model.init(jax.random.key(0), X), question)


def answers_of(model, variables, question):
    """What each layer of a model answers when it is called."""
    answers = []

    def heard(method, args, kwargs, context):
        if isinstance(context.module, linen.Dense):
            answers.append(question(context.module))
        return method(*args, **kwargs)

    with linen.intercept_methods(heard):
        _flax.apply_flagged(lambda model: model(X), model, variables, "own", rngs=None, mutable=False)
    return answers


FLAX = {
    "plain": lambda model, x: model.p(x),
    "nn.jit": lambda model, x: linen.jit(lambda m, x: m.p(x))(model, x),
    "nn.remat": lambda model, x: linen.remat(lambda m, x: m.p(x))(model, x),
    "nn.vmap": lambda model, x: linen.vmap(
        lambda m, x: m.p(x), variable_axes={"params": None}, split_rngs={"params": False}
    )(model, x),
    "nn.scan": lambda model, x: linen.scan(
        lambda m, x, _: (m.p(x), None), variable_broadcast="params", split_rngs={"params": False}, length=2
    )(model, x, None)[0],
    "nn.vjp": lambda model, x: linen.vjp(lambda m, x: m.p(x), model, x)[0],
}
BRANCHES = {
    "nn.cond": lambda model, x: linen.cond(True, lambda m, x: m.p(x), lambda m, x: m.p(x), model, x),
    "nn.switch": lambda model, x: linen.switch(0, [lambda m, x: m.p(x), lambda m, x: m.p(x)], model, x),
}
JAX = {
    "jax.vmap": lambda model, x: jax.vmap(model.p)(x),
    "jax.grad": lambda model, x: jax.grad(lambda x: model.p(x).sum())(x),
    "jax.checkpoint": lambda model, x: jax.checkpoint(lambda x: model.p(x))(x),
    "jax.lax.map": lambda model, x: jax.lax.map(model.p, x),
    "jax.lax.cond": lambda model, x: jax.lax.cond(True, lambda x: model.p(x), lambda x: x, x),
}


@pytest.mark.parametrize("place", [*FLAX, *BRANCHES, *JAX])
def test_a_linen_module_knows_whether_jax_itself_transforms_it(place):
    answers = ask((FLAX | BRANCHES | JAX)[place], _flax.is_in_trace_of_model)
    assert set(answers) == {place not in JAX}


def test_a_linen_module_that_is_made_inside_a_transformation_of_jax_knows_it():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return jax.vmap(lambda x: linen.Dense(3)(x))(x)

    variables = {"params": {"Dense_0": linen.Dense(3).init(jax.random.key(0), X)["params"]}}
    assert answers_of(Net(), variables, _flax.is_in_trace_of_model) == [False]


@pytest.mark.parametrize("place", [*FLAX, *BRANCHES, *JAX])
def test_the_stack_tells_the_branches_of_linen(place):
    def question(module):
        return _flax.has_branch(frame for frame, _ in traceback.walk_stack(sys._getframe()))

    assert set(ask((FLAX | BRANCHES | JAX)[place], question)) == {place in BRANCHES}


@pytest.mark.parametrize("place", [*FLAX, *BRANCHES, *JAX])
def test_the_modules_of_a_run_have_its_flag_wherever_they_run(place):
    how = (FLAX | BRANCHES | JAX)[place]
    for asked in ("own", "another"):
        answers = ask(how, lambda module, asked=asked: _flax.has_flag(module, asked))
        assert set(answers) == {asked == "own"}


def test_a_model_inside_has_no_flag():
    other = linen.Dense(3)
    variables = other.init(jax.random.key(0), X)
    assert not _flax.has_flag(other, "own")  # and is not bound
    for inside in (other.bind(variables), lambda x: other.apply(variables, x)):
        answers = ask(
            lambda model, x, inside=inside: model.p(inside(x)), lambda module: _flax.has_flag(module, "own")
        )
        assert answers == [False, True]


@linen.jit
class Compiled(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3)(x)


def test_a_compiled_class_is_compiled_anew_for_a_flag_that_it_has_not_met():
    model, heard = Compiled(), []
    variables = model.init(jax.random.key(0), X)
    for flag in ("one", "two"):

        def hear(method, args, kwargs, context, flag=flag):
            if isinstance(context.module, linen.Dense):
                heard.append((flag, _flax.has_flag(context.module, flag)))
            return method(*args, **kwargs)

        with linen.intercept_methods(hear):
            _flax.apply_flagged(lambda model: model(X), model, variables, flag, rngs=None, mutable=False)
    assert heard == [("one", True), ("two", True)]


def test_a_flagged_run_is_an_apply_of_the_model():
    class Counting(linen.Module):
        inner: linen.Module

        @linen.compact
        def __call__(self, x):
            self.variable("count", "calls", lambda: jnp.zeros(())).value += 1
            return linen.Dropout(0.5, deterministic=False)(self.inner(x))

    model = Counting(linen.Dense(3), name="named")
    variables = model.init(jax.random.key(0), X)
    how = {"rngs": {"dropout": jax.random.key(1)}, "mutable": ["count"]}
    expected = model.apply(variables, X, **how)
    seen = []

    def run(bound):
        seen.append(bound)
        return bound(X)

    found = _flax.apply_flagged(run, model, variables, "own", **how)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, found, expected))
    assert seen[0].name == "named"
    assert model.scope is None  # it was a copy that ran


def test_the_path_of_a_shared_scope_is_that_of_its_variables():
    paths = []

    def heard(method, args, kwargs, context):
        if context.method_name == "__call__":
            paths.append(_flax.linen_path(context.module))
        return method(*args, **kwargs)

    variables = shared_scopes.Outer().init(jax.random.key(0), X)
    with linen.intercept_methods(heard):
        shared_scopes.Outer().apply(variables, X)
    assert set(paths) == {(), ("shared",), ("shared", "layers_0"), ("shared", "layers_1"), ("Dense_0",)}
    held = jax.tree.leaves_with_path(variables["params"])
    assert {tuple(key.key for key in path[:-1]) for path, _ in held} < set(paths)
