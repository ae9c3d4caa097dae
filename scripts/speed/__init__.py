"""Parts of ``scripts/benchmark.py``: what is timed, and how."""
