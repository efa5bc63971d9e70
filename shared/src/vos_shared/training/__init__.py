"""Everything about a training run but its step: `TrainingRun`, batches that resume, optimisers, shared options."""
