"""Parts of the pytest plugin that are imported when a test measures energy."""
