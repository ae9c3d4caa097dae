"""``python -m litdiffusion`` is the command ``litdiffusion``."""

from litdiffusion.commands.entry import main

if __name__ == "__main__":
    main()
