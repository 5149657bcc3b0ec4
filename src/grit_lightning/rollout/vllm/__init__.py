"""vLLM as an engine for rollouts and evaluations, in the process of the trainer."""
