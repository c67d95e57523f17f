"""``python -m sb3_pave`` is ``sb3-pave``."""

from sb3_pave.commands.main import main

# Worker processes of a vectorised environment import this file, too
if __name__ == "__main__":
    main()
