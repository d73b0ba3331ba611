"""``python -m dermseg``, for where the program is not on the path."""

from dermseg.apps.cli.main import run

if __name__ == "__main__":
    run()
