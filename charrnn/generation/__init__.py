"""Generate text from a model: decoding loop, sampling, stop conditions, prompt states."""
