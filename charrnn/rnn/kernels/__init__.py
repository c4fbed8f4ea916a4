"""Functions that are compiled for the processor at run time."""
