"""The network: its cells, its state, and the backends that compute it."""
