"""Training open models: LoRA or all parameters, to a verdict on convergence."""
