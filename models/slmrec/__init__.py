"""SLMRec (arXiv 2405.17890): the recommender on a language model's layers, and its distillation."""
