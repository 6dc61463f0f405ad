"""Launches the jobs of a sweep: in processes of this machine, on a Ray cluster, or as an array of SLURM."""
