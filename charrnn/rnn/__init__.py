"""The network and the equations of its cells."""
