"""What should be: pure functions from the observed fleet to objects and next steps.

Nothing here reads a clock, a socket or chance. The same observations give the same answer in any order, so an operator
that restarts picks up where the last one was, and has nothing to do when nothing changed.
"""
