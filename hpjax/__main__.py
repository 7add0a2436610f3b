"""``python -m hpjax``: the command line, where ``hpjax`` is not on the path."""

from hpjax.frontends.cli import main

if __name__ == "__main__":
    main(prog_name="hpjax")
