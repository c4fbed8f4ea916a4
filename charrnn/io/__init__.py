"""Files written whole, locks, and the container format."""
