"""The commands that a user can type, and the steps of an attempt at a run."""
