"""Linen modules of which one has its variables in the scope of another."""

from flax import linen


class Shared(linen.Module):
    """Two layers of another module, under its own name."""

    def setup(self):
        self.base = linen.Sequential([linen.Dense(5), linen.Dense(4)])
        linen.share_scope(self, self.base)

    def __call__(self, x):
        return self.base(x)


class Outer(linen.Module):
    """A network with `Shared` inside: the layers shared/layers_0, shared/layers_1 and Dense_0."""

    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(Shared(name="shared")(x))
