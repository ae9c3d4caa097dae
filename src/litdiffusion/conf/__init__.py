"""The yamls. A package, so that a config of your own finds them by ``pkg://litdiffusion.conf``."""
