"""What fits read (`assets.workspace.recipe.Inputs`), a module each: an identity covers the code of its own alone."""
