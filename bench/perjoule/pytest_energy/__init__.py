"""What the pytest plugin does once a test asks for joules: measure, keep, compare, print."""
