"""Check perjoule on a machine with an NVIDIA GPU, and rehearse the check without one; see docs/gpu-check.md."""
