"""``python -m bigbird_port`` is ``bigbird-port``."""

from bigbird_port.cli import main

if __name__ == "__main__":
    main()
