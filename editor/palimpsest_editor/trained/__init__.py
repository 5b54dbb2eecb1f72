"""Methods that train: batch LoRA and distillation."""
