"""The calls of a model's modules: the output of each that is measured is sown, with a note.

To tell a layer from a stack of layers, each module notes the rank of its output and of its parameters, as
they are inside the module. A scan or a vmap adds axes afterwards. If each iteration has parameters of its
own, both output and parameters have the new axes: these are layers, `blocks/dense/0`, ... If the iterations
share parameters, only the output has the new axes: these are time steps, and count as samples. The note is
the name under which the value is sown, and so survives jit, remat and scan.
"""

import inspect
import math
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cgalr_jax import _checks, _leaves
from cgalr_jax.capture import _flax
from cgalr_jax.capture import choice as choices
from cgalr_jax.capture.choice import Choice

__all__ = ["Listener", "Note", "Path", "is_note", "join", "samples_first", "units_last"]

_NOTE = "cgalr:"

# The place of a module or a sown value in the model. Paths are joined to names only at the very end: 'a/b'
# may be the name of one module and the path of another.
Path = tuple[Any, ...]


def join(path: Path) -> str:
    """The name of a path."""
    return "/".join(map(str, path))


class Note(NamedTuple):
    """Facts about a module's return, encoded in the name under which its value is sown."""

    call: int  # how many modules had returned before, in this forward pass
    rank: int  # number of axes of the value inside the module; a module that is not measured sows a scalar
    parameters: int  # number of axes of all its parameters together, inside the module
    measured: int  # 0 or 1

    def name(self) -> str:
        """The name under which the value is sown."""
        return _NOTE + ":".join(map(str, self))

    @classmethod
    def read(cls, name: str) -> "Note":
        """The note encoded in a name."""
        return cls(*map(int, name.removeprefix(_NOTE).split(":")))


def is_note(path: Path) -> bool:
    """Whether a value was sown with a note, not by the model itself."""
    return str(path[-1]).startswith(_NOTE)


class Listener:
    """Records what the modules of one forward pass return."""

    def __init__(
        self,
        choice: Choice,
        default: Callable[[Any], bool],
        units_last: Callable[[Any, Any, Any], jax.Array],
        unreachable: str,
    ):
        self.choice = choice
        self.default = default  # whether a module is measured if `layers` is None
        self.units_last = units_last  # (module, its output, keyword arguments of its call) -> [N, ..., F]
        self.unreachable = unreachable  # where no output can be sown, and what to do about it
        self.paths: list[Path] = []  # of all modules called
        self.transforms: dict[Path, list[str]] = {}  # those of Flax around their calls, from the inside out
        self.measured: set[Path] = set()  # of the modules whose output was sown
        self.shapes: list[tuple[int, ...]] = []  # of what each call has sown, inside its module
        self.inside = False  # whether a measured layer is running

    @property
    def names(self) -> list[str]:
        """The names of all modules called, sorted; the model itself has no name."""
        return sorted({join(path) for path in self.paths} - {""})

    def forward(self, model: Any, samples: Any) -> Any:
        """One forward pass.

        Raises:
            ValueError: if there is no `forward`, and the model takes other arguments than samples, or not
                these; if `forward` calls no module of the model.
        """
        forward = self.choice.get("forward")
        if forward is None:
            try:
                inspect.signature(model).bind(samples)
            except TypeError as error:
                raise ValueError(
                    "forward must be passed, to capture.example and to the probe, if the model takes other "
                    "arguments than samples: forward=lambda model, x: model(x, train=False); got none, "
                    f"and {error}."
                ) from None
        try:
            output = model(samples) if forward is None else forward(model, samples)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            if _is_ours(error):
                raise
            said = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
            # What Flax or the model says of a tuple, a dictionary or nothing in the place of an array.
            if forward is None and not (_leaves.is_array(samples) and jnp.ndim(samples)):
                raise ValueError(
                    "samples must be what the model takes, or forward=lambda model, samples: model(*samples) "
                    f"passed, to capture.example and to the probe; got {_checks.shown(samples)}, and {said}"
                ) from error
            if forward is not None and not self.paths:
                raise self._not_run(said) from error
            raise
        if not self.paths:
            raise self._not_run("no call of any of its modules")
        return output

    def _not_run(self, instead: str) -> ValueError:
        """The error for a `forward` that has called no module of the model."""
        return ValueError(
            "forward must run the model, forward(model, samples), as in forward=lambda model, x: model(x), "
            f"got {_checks.shown(self.choice.get('forward'))}, and {instead}."
        )

    def not_reached(self, name: str) -> ValueError:
        """The error for a layer out of whose place nothing is sown."""
        return ValueError(
            f"layers must be reachable, got {name!r} inside {self.unreachable}, or choose other layers."
        )

    def not_reached_in(self, transform: str) -> ValueError:
        """The error for a transformation out of which nothing is sown: what is in it, and what is not."""
        within = {join(path) for path, around in self.transforms.items() if transform in around}
        others = [name for name in self.names if name not in within]
        instead = f"such as a module around it, among {others}" if others else "or write a probe of your own"
        return ValueError(
            f"layers must be reachable, got {sorted(within)} inside an {transform} that carries or shares "
            f"their module; choose other layers, {instead}."
        )

    def call(
        self,
        path: Path,
        module: Any,
        ranks: Callable[[], list[int]],
        run: Callable[[], Any],
        sow: Any,
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Runs one module. Sows its output if it is measured, a scalar if only values that it sows may be."""
        name = join(path)
        self.paths.append(path)
        wanted = not self.inside and choices.is_wanted(self.choice, name, module, self.default)
        if not wanted and (self.inside or not choices.may_sow(self.choice, name)):
            return run()
        self.inside = wanted
        try:
            output = run()
        finally:
            self.inside = False
        value = self.units_last(module, output, kwargs) if wanted else jnp.zeros(())
        note = Note(len(self.shapes), value.ndim, sum(ranks()), int(wanted))
        self.shapes.append(value.shape)
        if sow(note.name(), value) is False and wanted:
            raise self.not_reached(name)
        if wanted:
            self.measured.add(path)
        return output


def _is_ours(error: BaseException) -> bool:
    """Whether an error was raised here, or by Flax of a place where nothing can be sown."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__name__", "").startswith("cgalr_jax") or _flax.is_of_captures(error)


def units_last(output: Any, recurrent: bool, features: int) -> jax.Array:
    """The output array of a module, its last `features` axes merged; if recurrent, of (carry, output)."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(output) if _leaves.is_array(x) and jnp.ndim(x)]
    if not leaves:
        raise ValueError(
            f"layers must return an array [N, ..., F], got one that returns {_checks.shown(output)}; choose "
            "others."
        )
    value = leaves[-1] if recurrent else leaves[0]
    return value.reshape(*value.shape[:-features], math.prod(value.shape[-features:]))


def samples_first(value: jax.Array, module: Any, kwargs: Mapping[str, Any]) -> jax.Array:
    """The output of an RNN whose first axis is that of the samples, as its call or the module says."""
    called = kwargs.get("time_major")
    return jnp.swapaxes(value, 0, 1) if (module.time_major if called is None else called) else value
