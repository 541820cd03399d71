"""The stop button: forbids moves at once, from any thread, whatever the adapter is doing."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Literal

from devices.errors import DeviceError, DeviceTimeout

ANSWER_WITHIN_S = 0.05


class Brake:
    """Forbids moves at once and has the stage stopped from a thread of its own.

    MMCore calls into one adapter wait for each other: during a 3 s demo exposure ``stop`` waited
    2.7 s. Hence the order: first the moves are forbidden, which nothing can delay, then the stop
    is sent, and nobody waits for it longer than 50 ms.

    Parameters
    ----------
    send_stop : callable
        Tells the stage to stop; may block, may raise a `DeviceError`.
    """

    def __init__(self, send_stop: Callable[[], None]) -> None:
        self._send_stop = send_stop
        self._pressed = Event()
        self._presses = 0
        self._lock = Lock()
        self._sender: Thread | None = None
        self._refusal: DeviceError | None = None

    @property
    def pressed(self) -> bool:
        """Whether moves are forbidden."""
        return self._pressed.is_set()

    @property
    def presses(self) -> int:
        """How often it was pressed so far; a return to the start heeds only new presses."""
        return self._presses

    @property
    def refusal(self) -> DeviceError | None:
        """Why the last stop could not be sent; None when it was, or still is on its way."""
        return self._refusal

    def press(self) -> Literal["stopped", "pending"]:
        """Forbid moves, send a stop, and say whether it has been taken already."""
        with self._lock:
            self._presses += 1
            self._pressed.set()
            sender = self._sender
            if sender is None or not sender.is_alive():
                self._refusal = None
                sender = self._sender = Thread(target=self._send, name="stop", daemon=True)
                sender.start()
        sender.join(ANSWER_WITHIN_S)
        return "pending" if sender.is_alive() or self._refusal else "stopped"

    def release(self) -> None:
        """Allow moves again."""
        self._pressed.clear()

    def wait_until_sent(self, timeout_s: float) -> None:
        """Wait for a stop that is on its way, which would otherwise interrupt the next move.

        Raises
        ------
        DeviceTimeout
            If the adapter has not taken it within ``timeout_s``.
        """
        with self._lock:  # or a thread that is just being started would be found here
            sender = self._sender
        if sender is None:
            return
        sender.join(timeout_s)
        if sender.is_alive():
            raise DeviceTimeout(
                f"the stage has not taken the stop for {timeout_s:g} s; no move is sent after it"
            )

    def _send(self) -> None:
        try:
            self._send_stop()
        except DeviceError as error:
            self._refusal = error
