"""Networks, data and other parts of this project; a yaml in conf/ names them in ``_target_``."""
