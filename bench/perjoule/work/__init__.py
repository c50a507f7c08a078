"""Counted work: how much a network computes, and the joules that a profile gives for it. Torch is loaded when used."""
