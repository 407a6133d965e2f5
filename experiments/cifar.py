"""The whole method on long-tailed, mislabelled CIFAR-10 or CIFAR-100."""

from experiments.command_line import main
from experiments.config import CIFAR

if __name__ == "__main__":
    main(CIFAR)
