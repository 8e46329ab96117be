"""What the library costs: the kernels by themselves, and a training step with and without it."""
