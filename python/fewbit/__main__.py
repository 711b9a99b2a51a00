"""``python -m fewbit`` is ``fewbit``."""

from fewbit.cli import main

if __name__ == "__main__":
    main()
