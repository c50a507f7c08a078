"""Power logs and calibration against recordings of real boards."""
