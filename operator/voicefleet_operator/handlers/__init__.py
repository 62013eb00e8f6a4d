"""The shell: watches mark what changed, one loop makes a plan and carries it out."""
