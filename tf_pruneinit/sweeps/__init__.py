"""Many runs: plans, jobs and launchers."""
