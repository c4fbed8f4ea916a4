"""One character at a time, in NumPy: the network, the choice, the loop."""
