"""The README tells the truth: its example runs and learns, its commands are those that the gate runs."""

import pathlib
import re

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import linen, nnx

import cgalr_jax

pytestmark = pytest.mark.smoke

README = pathlib.Path(__file__).parent.parent / "README.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_example_learns(capsys):
    names = {}
    exec(compile(blocks("python")[0], "README.md", "exec"), names)
    value, scale = map(float, capsys.readouterr().out.split())
    untrained = float(names["loss"]({"w": names["params"]["w"], "v": 0 * names["params"]["v"]}))
    assert f"{untrained:.2f}" == "0.48"  # as the sentence below it says
    assert value < 0.01
    assert scale > 10  # the base rate is far too small
    rate = 1e-5 * cgalr_jax.metrics(names["opt_state"])["cgalr/anchor"]
    assert rate > 1000 * 1e-5  # as it says below


def run_jitted(code, names, result):
    """Runs code as the README says, inside of jit, which compiles it once."""

    @nnx.jit
    def step():
        made = names()
        exec(compile(code, "README.md", "exec"), made)
        return cgalr_jax.metrics(made[result])["cgalr/step"]

    return step()


def test_the_lines_for_flax_run():
    for_nnx, for_linen = blocks("python")[1].split("# linen")
    imports = for_nnx.split("# nnx")[0]
    x = jax.random.normal(jax.random.key(0), (8, 3))
    shared = {"optax": optax, "nnx": nnx, "x": x, "schedule": optax.cosine_decay_schedule(0.1, 100)}

    def with_nnx():
        rngs = nnx.Rngs(0)
        model = nnx.Sequential(nnx.Linear(3, 5, rngs=rngs), nnx.relu, nnx.Linear(5, 2, rngs=rngs))
        grads = nnx.grad(lambda model: jnp.mean(model(x) ** 2))(model)
        return shared | {"model": model, "grads": grads}

    def with_linen():
        net = linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(2)])
        params = net.init(jax.random.key(0), x)["params"]
        grads = jax.grad(lambda params: jnp.mean(net.apply({"params": params}, x) ** 2))(params)
        return shared | {"net": net, "params": params, "grads": grads}

    assert run_jitted(for_nnx, with_nnx, "optimizer") == 1
    assert run_jitted(imports + "# linen" + for_linen, with_linen, "state") == 1


def test_the_example_is_short():
    assert len(blocks("python")[0].splitlines()) <= 12


def test_the_commands_are_the_first_two():
    commands = [line for line in blocks("bash")[0].splitlines() if line.startswith("python3 ")]
    assert [command.split()[-1] for command in commands[:1]] == ["examples/quickstart.py"]
    assert "pytest" in commands[1]
