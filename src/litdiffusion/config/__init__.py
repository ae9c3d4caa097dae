"""From yaml to objects: composition, keys, trusted packages, and all checks before training."""
