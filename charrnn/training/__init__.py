"""Train a model: plan, autotuning, training loop, saving."""
