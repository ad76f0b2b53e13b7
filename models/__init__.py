"""How it learns: sequences, recommenders, backbone, distillation, training. Needs torch, transformers and peft only."""
