"""The whole method on embedded data: long-tailed, mislabelled 8x8 digits, minutes on a laptop."""

from experiments.command_line import main
from experiments.config import DIGITS

if __name__ == "__main__":
    main(DIGITS)
