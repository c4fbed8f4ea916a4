"""From a text to a trained model: the plan, the machine, the loop."""
