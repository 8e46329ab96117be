"""What a classifier is trained by and scored by, and when a score is worth no more than a constant answer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def cross_entropy(outputs: jax.Array, classes: jax.Array) -> jax.Array:
    """The mean negative log likelihood, nats; classes of any leading shape."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, classes).mean()


def error(outputs: jax.Array, classes: jax.Array) -> jax.Array:
    """The share of samples whose largest output is not the true class; NaN where an output is not finite."""
    wrong = jnp.mean(jnp.argmax(outputs, -1) != classes)
    return jnp.where(jnp.all(jnp.isfinite(outputs)), wrong, jnp.nan)


def capped(score: jax.Array, chance: float) -> jax.Array:
    """The score; one that is not finite or above that of a constant answer counts as that."""
    return jnp.where(score < chance, score, chance)  # NaN counts as chance too


def at_chance(score: Any, chance: float) -> Any:
    """bool[...], where a score is within 5 % of a constant answer's, or worse."""
    return score >= 0.95 * chance
