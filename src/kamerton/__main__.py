"""`python -m kamerton`: the command line, for containers and child processes."""

from kamerton.cli.main import run

if __name__ == "__main__":
    run()
