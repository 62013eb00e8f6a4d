"""`python -m voicefleet_dataplane`: the `voicefleet` command."""

from voicefleet_dataplane.cli import main

if __name__ == "__main__":
    main()
