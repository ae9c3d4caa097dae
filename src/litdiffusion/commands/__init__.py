"""One file for each thing that a user can type, and what an attempt at a run goes through."""
