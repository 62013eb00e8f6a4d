"""`make attack`: attacks on a fleet of real processes on loopback, and what they cost calls in progress."""
