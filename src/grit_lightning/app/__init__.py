"""The command line: compose the config, check it, run the task that it names, and put an error into one line."""
