"""The command line of run_experiment.py: its flags, its help, and the configuration they make."""
