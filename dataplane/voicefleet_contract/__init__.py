"""What voicefleet's processes agree on: wire formats of our own, resource models, names and settings.

Nothing here touches a loop, a socket, a clock or chance; randomness and time are arguments.
"""
