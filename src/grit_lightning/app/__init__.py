"""The command line: composes the config, checks it, and runs the task it names."""
