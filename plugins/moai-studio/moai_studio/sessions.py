"""Hold each visitor's pictures apart from the others', within limits.

Knows: pictures, perceptions and works; no run. A session is known by a random name that its page keeps.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from PIL.Image import Image

from moai.errors import ImageError, PromptError
from moai.types import Perception
from moai_studio.work import Work

MAX_SESSIONS, MAX_PICTURES = 64, 12  # the latter of one session
MAX_BYTES = 2_000_000_000  # of all pictures together, as RGB
MAX_WORKS, MAX_OWN_WORKS = 16, 4  # at a time: of all sessions, of one


@dataclass
class Picture:
    """Hold a picture, and what was perceived in it for each run."""

    id: str
    image: Image
    perceptions: dict[str, Perception] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def bytes(self) -> int:
        """The memory of its pixels."""
        return self.image.width * self.image.height * 3


@dataclass
class Session:
    """Hold one visitor's pictures, and the works that run for them."""

    pictures: OrderedDict[str, Picture] = field(default_factory=OrderedDict)
    works: dict[str, Work] = field(default_factory=dict)

    def picture(self, name: str) -> Picture:
        """Find a picture.

        Raises:
            ImageError: it was never here, or has made room for others.
        """
        found = self.pictures.get(name)
        if found is None:
            raise ImageError("this picture is not held any more; add it again")
        return found


class Busy(Exception):
    """Says in a sentence that too much runs already."""


class Sessions:
    """Hold all sessions; those that were used longest ago make room for new ones."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def create(self) -> str:
        """Begin a session and return its name."""
        name = secrets.token_urlsafe(24)
        with self._lock:
            self._all[name] = Session()
            while len(self._all) > MAX_SESSIONS:
                _, oldest = self._all.popitem(last=False)
                for work in list(oldest.works.values()):
                    work.stop()
        return name

    def find(self, name: str | None) -> Session:
        """Find a session by its name.

        Raises:
            PromptError: there is none of this name.
        """
        with self._lock:
            found = self._all.get(name or "")
            if found is None:
                raise PromptError("this page's session has ended; reload the page")
            self._all.move_to_end(name or "")
            return found

    def hold(self, session: Session, image: Image) -> Picture:
        """Hold a picture for a session; its oldest ones, and those of idle sessions, make room.

        Raises:
            ImageError: the picture alone is larger than what all may take.
        """
        picture = Picture(secrets.token_urlsafe(8), image)
        if picture.bytes > MAX_BYTES:
            raise ImageError("this picture is too large for the studio; scale it down first")
        with self._lock:
            session.pictures[picture.id] = picture
            while len(session.pictures) > MAX_PICTURES:
                session.pictures.popitem(last=False)
            self._make_room(picture)
        return picture

    def _make_room(self, new: Picture) -> None:
        total = sum(p.bytes for one in self._all.values() for p in one.pictures.values())
        for session in self._all.values():  # the one that was used longest ago first
            for name, picture in list(session.pictures.items()):
                if total <= MAX_BYTES:
                    return
                if picture is not new:
                    del session.pictures[name]
                    total -= picture.bytes

    def begin(self, session: Session, work: Work) -> None:
        """Note that a work begins.

        Raises:
            Busy: too many run.
        """
        with self._lock:
            if len(session.works) >= MAX_OWN_WORKS or sum(len(s.works) for s in self._all.values()) >= MAX_WORKS:
                raise Busy("too much is being computed at the moment; try again in a few seconds")
            session.works[work.id] = work

    def end(self, session: Session, work: Work) -> None:
        """Note that a work has ended."""
        with self._lock:
            session.works.pop(work.id, None)

    def stop_all(self) -> None:
        """Stop every work, at the end of the server."""
        with self._lock:
            works = [work for session in self._all.values() for work in session.works.values()]
        for work in works:
            work.stop()
