"""scikit-learn's handwritten digits: 1797 images of 8 x 8, standardised as a whole."""

import jax.numpy as jnp
from sklearn import datasets

_images, _labels = datasets.load_digits(return_X_y=True)
IMAGES = jnp.asarray((_images - _images.mean()) / _images.std(), jnp.float32)
LABELS = jnp.asarray(_labels)
