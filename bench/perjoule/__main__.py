"""`python -m perjoule`: the command line without its script."""

from perjoule.cli import main

main()
