"""The events of a session, for threads."""

from __future__ import annotations

import queue
from typing import Iterator, Optional

from ._report import Feed, SessionEvent
from ._thread import Session


class SessionEvents(Iterator[SessionEvent]):
    """What becomes of a session, as it happens: an iterator that waits for the next event.

    For logs and health checks; whether a lock is held, its hold knows first. 1,024 events are kept,
    and of more the oldest are dropped. It ends after the event ``closed``.
    """

    def __init__(self, session: Session):
        self._session: Optional[Session] = session
        self._bell: "queue.SimpleQueue[None]" = queue.SimpleQueue()
        self._feed = Feed(lambda: self._bell.put(None))
        session.listen(self._feed)

    def __next__(self) -> SessionEvent:
        while self._session is not None and not self._session.is_forked:
            event = self._session.next_event(self._feed)
            if event is not None:
                if event.kind == "closed":
                    self.close()
                return event
            self._bell.get()
        raise StopIteration

    def close(self) -> None:
        """Ends it, for whoever waits for it, too."""
        session, self._session = self._session, None
        if session is not None:
            session.listen_no_more(self._feed)
        self._bell.put(None)
