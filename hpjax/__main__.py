"""The command line as ``python -m hpjax``, for where ``hpjax`` is not on the path."""

from hpjax.frontends.cli import main

if __name__ == "__main__":
    main(prog_name="hpjax")
