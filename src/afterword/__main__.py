"""`python -m afterword`: the command line, also under torchrun and accelerate launch."""

from afterword.cli import main

main()
