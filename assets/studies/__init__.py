"""The studies: what each part of the method is worth, over several trainings with several seeds. A module each."""
