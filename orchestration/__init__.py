"""When and how it runs: definitions, jobs, domains, profiles and the command line."""
