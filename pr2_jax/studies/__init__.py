"""Studies of a finished work directory: ablations, sweeps, diagnoses. Each is a command; no stage needs one."""
