"""Mutants of the models' own code: small changes by rule, and which of them the comparison sees.

rules.py says what is changed, generate.py where; gate.py is what must turn red, probes/ what says that
a change changes anything; worker.py runs both in a process of its own, pool.py many of these; score.py counts.
"""
