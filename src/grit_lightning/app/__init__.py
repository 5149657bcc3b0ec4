"""The command line: compose the config, check it, and run the task that it names."""
