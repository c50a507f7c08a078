"""Models and weights: catalogue, downloads, digests and licences."""
