"""Text: where it comes from, what a character is, and in what order the network reads it."""
