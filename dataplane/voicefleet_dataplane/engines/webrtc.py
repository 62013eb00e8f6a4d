"""WebRTC's own voice activity detector: two microseconds a frame, and it takes many noises for speech."""

import webrtcvad

_FRAME_BYTES = 640
_MODE = 3  # the one that believes least


class WebRTC:
    """Nothing is shared."""

    def open(self) -> "WebRTCEar":
        """Return one call's."""
        return WebRTCEar()


class WebRTCEar:
    """One call's."""

    window_ms = 20.0

    def __init__(self) -> None:
        self._vad = webrtcvad.Vad(_MODE)

    def judge(self, pcm: bytes) -> list[float]:
        """Return 1 or 0 for each frame."""
        frames = (pcm[at : at + _FRAME_BYTES] for at in range(0, len(pcm), _FRAME_BYTES))
        return [float(self._vad.is_speech(frame, 16_000)) for frame in frames]
