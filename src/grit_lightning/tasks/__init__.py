"""What ``task=NAME`` runs: each composes the parts from the config and calls them."""
