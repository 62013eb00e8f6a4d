"""The work behind the commands of `cli`, one module each."""
