"""Other packages train this project's net on the same data, each in the way that its own documentation shows."""
