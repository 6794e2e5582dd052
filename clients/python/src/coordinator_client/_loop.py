"""The same as `_thread` on an asyncio loop: callbacks of one connection and one timer.

A release, and a cancel, are in the transport before anything is awaited: a task that is cancelled
while it gives a lock back has given it back. Belief is read from our own clock, never from a timer:
those of asyncio stand still while the machine is suspended.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
import weakref
from typing import Any, AsyncGenerator, Callable, Generator, List, Optional, Set, Tuple

from . import _clock, _core, _dial, _last, _search, _wire as wire
from ._core import Ask, Core, Introduction, Reconnect
from ._desk import HELD, LOST, WAITING, Desk, Grasp, nobody, not_free
from ._errors import Cancelled, Closed, LockError, LockLost, silent, unavailable
from ._loop_link import Link
from ._terms import first_name

FAREWELL_TIMEOUT = 1.0
RELEASE_TIMEOUT = 5.0
ANSWER_GRACE = 2.0
SLEEP_MAX = 3600.0

_sessions: "weakref.WeakSet[Session]" = weakref.WeakSet()


async def open_session(
    dialer: _search.Dialer, search: _search.Search, introduction: Introduction
) -> "Session":
    """A session with the first server that welcomes us. Raises `Unavailable` and others."""
    while True:
        session = Session(dialer, introduction)
        try:
            await session.open(search.share(), search.plan())
            return session
        except BaseException as error:
            session.abandon()
            pause = search.after(error)
        await asyncio.sleep(pause)


class Answer:
    """What may be awaited, or not: it has been asked for already."""

    def __init__(self, work: Callable[[], Generator[Any, None, None]]):
        self._work = work

    def __await__(self) -> Generator[Any, None, None]:
        return self._work()


class Session:
    """A session with a coordinator, on the loop that runs when it is made."""

    def __init__(self, dialer: _search.Dialer, introduction: Introduction):
        self.pid = os.getpid()
        self.loop = asyncio.get_running_loop()
        self.server = _dial.shown(dialer.servers)
        self._introduction = introduction
        self._dialer = dialer
        self._link: Optional[Link] = None
        self._second: Optional[Link] = None
        self._timer: Optional[asyncio.TimerHandle] = None
        self._timer_at: Optional[int] = None
        self._welcome: "asyncio.Future[None]" = self.loop.create_future()
        self._gone: "asyncio.Future[None]" = self.loop.create_future()
        self._tasks: Set["asyncio.Task[None]"] = set()
        self._leaving = False
        self._guard: Optional[AsyncGenerator[None, None]] = None
        self._begin()
        _sessions.add(self)
        _last.is_used()

    def _begin(self) -> None:
        attempt_max = int(self._dialer.timeout * _core.SECOND)
        reconnect = Reconnect(attempt_max, _clock.seed(), len(self._dialer.servers))
        self.desk = Desk(Core(self._introduction, reconnect, _clock.now()), self.server)
        self.desk.on_welcome = self._welcomed
        self.desk.peer = lambda: self._dialer.peer

    async def open(self, timeout: float, plan: _search.Plan) -> None:
        """Connects, and waits for the welcome."""
        give_up_at = time.monotonic() + timeout
        dialed: "asyncio.Future[_dial.Connection]" = self.loop.create_future()
        self._dial(plan, timeout, dialed, lambda: not dialed.done())
        try:
            sock = await dialed
        except OSError as error:
            raise unavailable(self.server, error) from error
        except BaseException:
            dialed.add_done_callback(_close_result)
            raise
        self._begin()  # Hello is said now, and the lease counts from now.
        link = Link(self, self.desk.core.connection or 0)
        await link.begin(sock)
        self._link = link
        self.turn()
        _, pending = await asyncio.wait(
            [self._welcome], timeout=max(give_up_at - time.monotonic(), 0)
        )
        if self.desk.core.end is not None:
            raise self.desk.end_error()
        if pending:
            raise silent(self.server, timeout)
        # asyncio.run ends generators before it closes its loop: that is when to say goodbye.
        self._guard = self._until_shutdown()
        await self._guard.__anext__()

    async def _until_shutdown(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.close()

    def _welcomed(self) -> None:
        self._dialer.welcomed()
        if not self._welcome.done():
            self._welcome.set_result(None)

    @property
    def is_forked(self) -> bool:
        """Whether this is the copy of another process."""
        return self.pid != os.getpid()

    @property
    def is_over(self) -> bool:
        """Whether nothing can be asked over it any more."""
        return self.is_forked or self.loop.is_closed() or self.desk.core.end is not None

    # --- what tasks want ---

    async def acquire(
        self,
        ask: Ask,
        timeout: Optional[float] = None,
        began: Optional[Callable[[Grasp], None]] = None,
        on_queued: Optional[Callable[[int], None]] = None,
    ) -> Grasp:
        """Waits until the locks are held. Raises what comes instead."""
        self._check()
        answer: "asyncio.Future[None]" = self.loop.create_future()
        grasp = self.desk.request(ask, lambda: _resolve(answer))
        self._say()
        if began is not None:
            began(grasp)
        try:
            give_up_at = None if timeout is None else time.monotonic() + timeout + ANSWER_GRACE
            while True:
                # Not wait_for, which before 3.12 may swallow a cancellation.
                left = None if give_up_at is None else max(give_up_at - time.monotonic(), 0)
                await self._sleep(answer, left)
                position, grasp.position = grasp.position, None
                if grasp.stage != WAITING or position is None:
                    break
                answer = self.loop.create_future()
                if on_queued is not None:
                    on_queued(position)
        except BaseException:
            # A grant that crosses it is given back by this.
            self.cancel(grasp)
            raise
        if grasp.stage == WAITING:
            # Whether it is busy is not known: that the time is up, the coordinator would have said.
            self.cancel(grasp)
            raise silent(self.server, (timeout or 0) + ANSWER_GRACE)
        grasp.wake = nobody
        if grasp.error is not None:
            raise grasp.error
        if not self.desk.is_held(grasp):
            if grasp.stage == HELD:
                self.release(grasp)
            raise grasp.lost_error()
        return grasp

    async def _sleep(self, answer: "asyncio.Future[None]", timeout: Optional[float]) -> None:
        timer = None
        if timeout is not None:
            timer = self.loop.call_later(timeout, _resolve, answer)
        try:
            await answer
        finally:
            if timer is not None:
                timer.cancel()

    async def convert(self, grasp: Grasp, ask: Ask, timeout: Optional[float] = None) -> None:
        """Waits until what is held is held in other modes."""
        self._check_held(grasp)
        answer: "asyncio.Future[None]" = self.loop.create_future()
        conversion = self.desk.convert(grasp, ask, lambda: _resolve(answer))
        self.turn()
        try:
            await self._sleep(answer, None if timeout is None else timeout + ANSWER_GRACE)
            if not conversion.done:
                raise silent(self.server, (timeout or 0) + ANSWER_GRACE)
        except BaseException:
            # Nobody knows whether it was converted: both are given back.
            if not conversion.done and not self.is_forked:
                self.desk.release(grasp)
                self.turn()
            raise
        if conversion.error is not None:
            raise conversion.error

    def release(self, grasp: Grasp) -> Answer:
        """Gives back what is held, now; what it returns can be awaited to hear that it is free.

        That raises `Unavailable` if nobody says so.
        """
        answer, unknown = self._release(grasp)

        def hear() -> Generator[Any, None, None]:
            yield from answer.__await__()
            if unknown:
                raise unknown[0]

        return Answer(hear)

    def _release(self, grasp: Grasp) -> Tuple[Answer, List[LockError]]:
        """The answer to be awaited, and then why it is not known to be free."""
        unknown: List[LockError] = []
        self._check_held(grasp)
        answer: "asyncio.Future[None]" = self.loop.create_future()
        grasp.wake = lambda: _resolve(answer)
        self.desk.release(grasp)
        self._say()

        def hear() -> Generator[Any, None, None]:
            yield from self._sleep(answer, RELEASE_TIMEOUT).__await__()
            grasp.wake = nobody
            error = not_free(grasp) if grasp.answered else silent(self.server, RELEASE_TIMEOUT)
            if error is not None:
                unknown.append(error)

        return Answer(hear), unknown

    def let_go(self, grasp: Grasp) -> Optional[Answer]:
        """The same; what it returns is to be awaited, where not everything is in order.

        Else what the server says of it is heard by nobody. Only a loss that was not heard of yet is
        new in that.
        """
        link = self._smooth_link()
        if link is None:
            return self._release(grasp)[0]
        self._check_held(grasp)
        self.desk.release(grasp)
        link.put(self.desk.settle())
        return None

    def cancel(self, grasp: Grasp) -> None:
        """Gives a request up, whether it waits or was granted meanwhile."""
        if not self.is_forked:
            self.desk.cancel(grasp)
            self.turn()

    def end_wait(self, grasp: Grasp) -> None:
        """Ends somebody's wait with `Cancelled`."""
        if grasp.stage == WAITING and not self.is_forked:
            self.desk.cancel(grasp)
            grasp.error = Cancelled(f'the wait for "{first_name(grasp.ask)}" was cancelled')
            grasp.wake()
            self.turn()

    def drop(self, grasp: Grasp) -> None:
        """Gives back what nobody refers to any more, in whatever thread that is noticed."""
        if not self.is_over:
            try:
                self.loop.call_soon_threadsafe(self._drop, grasp)
            except RuntimeError:
                pass  # The loop is closed.

    def _drop(self, grasp: Grasp) -> None:
        if grasp.stage == HELD and not self.is_over:
            self.desk.release(grasp)
            self.turn()

    def leave(self) -> None:
        """Says goodbye once nothing is held and nobody waits: whose client is gone."""
        self._leaving = True
        if not self.is_over:
            try:
                self.loop.call_soon_threadsafe(self.turn)
            except RuntimeError:
                pass

    def is_held(self, grasp: Grasp) -> bool:
        """Whether it is held now."""
        return self.desk.is_held(grasp)

    def state(self, grasp: Grasp) -> str:
        """``held``, ``jeopardy`` or ``lost``."""
        return "lost" if grasp.is_forked else self.desk.state(grasp)

    def valid_for(self, grasp: Grasp) -> float:
        """For how many seconds it is held if nothing more is heard."""
        return max(0, self.desk.believed_until(grasp) - _clock.now()) / 1e6

    def lease_left(self) -> float:
        """For how many seconds the session lives if nothing more is heard."""
        return self.desk.lease_left() / 1e6

    def when_over(self, grasp: Grasp, listener: Callable[[], None]) -> None:
        """Calls it when the grasp is lost, or released."""
        if grasp.stage in (WAITING, HELD) and not grasp.is_forked:
            grasp.on_over.append(listener)
        elif grasp.stage == LOST or grasp.is_forked:
            listener()

    def _check(self) -> None:
        if self.is_forked or self.loop.is_closed():
            raise Closed("the client was closed")
        if self.desk.core.end is not None:
            raise self.desk.end_error()

    def _check_held(self, grasp: Grasp) -> None:
        try:
            self.desk.check_held(grasp)
        except LockLost:
            self.turn()
            raise

    # --- what happens ---

    def heard(self, link: Link, data: bytes) -> None:
        """Bytes came."""
        is_plain = self.desk.hear(link.number, link.frames, data, _clock.now())
        self._say() if is_plain else self.turn()

    def connection_over(self, link: Link, error: Optional[BaseException]) -> None:
        """It ended, or could not be made."""
        self._forget(link)
        if self.desk.core.end is not None:
            return self._farewell()
        self.desk.lose(link.number, error, _clock.now())
        self.turn()

    def _say(self) -> None:
        """A turn after what brings no deadline nearer: requests, releases and their answers."""
        link = self._smooth_link()
        if link is None:
            return self.turn()
        link.put(self.desk.settle())

    def _smooth_link(self) -> Optional[Link]:
        """The connection, if everything is in order and nothing is due."""
        core, link, due = self.desk.core, self._link, self._timer_at
        if (
            link is None
            or self._timer is None
            or due is None
            or due <= _clock.now()
            or self._leaving
            or not core.is_open
            or link.number != core.connection
        ):
            return None
        return link

    def turn(self) -> None:
        """Does what there is to do, and sets the timer."""
        core = self.desk.core
        if self._leaving and not self.desk.grasps:
            core.goodbye()
        core.tick(_clock.now())
        if core.end is None:
            self._follow()
        data = self.desk.settle()
        if self._link is not None:
            self._link.put(data)
        if core.end is not None:
            return self._farewell()
        deadline = self.desk.next_deadline()
        if deadline != self._timer_at or self._timer is None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = deadline
            left = SLEEP_MAX
            if deadline is not None:
                left = min(max(deadline - _clock.now(), 0) / 1e6, SLEEP_MAX)
            self._timer = self.loop.call_later(left, self._ring)

    def _ring(self) -> None:
        # Set anew even if it rang early by the core's clock.
        self._timer = None
        self.turn()

    def _follow(self) -> None:
        """Gives up the connections that are not wanted any more, begins to make those that are."""
        core = self.desk.core
        wanted = core.connection
        if wanted != (self._link.number if self._link else None):
            if self._link is not None:
                self._forget(self._link)
            if self._second is not None and self._second.number == wanted:
                self._link, self._second = self._second, None
            elif wanted is not None:
                self._link = Link(self, wanted)
                self._begin_dial(self._link)
        wanted = core.second_connection
        if wanted != (self._second.number if self._second else None):
            if self._second is not None:
                self._forget(self._second)
            if wanted is not None:
                self._second = Link(self, wanted)
                self._begin_dial(self._second)

    def _begin_dial(self, link: Link) -> None:
        core = self.desk.core
        plan = self._dialer.begin(core.hint(link.number), link.number != core.connection)
        task = self.loop.create_task(self._make(link, plan))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, link: Link, plan: _search.Plan) -> None:
        dialed: "asyncio.Future[_dial.Connection]" = self.loop.create_future()
        self._dial(plan, self._dialer.timeout, dialed, lambda: not link.is_dropped)
        try:
            sock = await dialed
            if link.is_dropped or self.is_over:
                sock.close()
                return
            await link.begin(sock)
        except OSError as error:
            if not link.is_dropped:
                self.connection_over(link, error)
            return
        if link.is_dropped:
            return link.drop()
        core, now = self.desk.core, _clock.now()
        if core.connection == link.number:
            core.connected(now)
        else:
            hello = core.second_connected(now)
            if hello is not None:
                link.put(wire.encode(hello))
        self.turn()

    def _dial(
        self,
        plan: _search.Plan,
        timeout: float,
        dialed: "asyncio.Future[_dial.Connection]",
        is_wanted: Callable[[], bool],
    ) -> None:
        """Connects in a thread: names are looked up there too."""

        def tell(server: Optional[_dial.Server], result: Any) -> None:
            if dialed.done():
                if not isinstance(result, OSError):
                    result.close()
            elif server is not None:
                self._dialer.reached(server)
                dialed.set_result(result)
            else:
                dialed.set_exception(result)

        def dial() -> None:
            server: Optional[_dial.Server] = None
            result: Any
            try:
                server, result = plan.connect(timeout, is_wanted)
            except OSError as error:
                result = error
            try:
                self.loop.call_soon_threadsafe(tell, server, result)
            except RuntimeError:  # The loop is closed.
                if not isinstance(result, OSError):
                    result.close()

        try:
            threading.Thread(target=dial, name="coordinator-client-dial", daemon=True).start()
        except RuntimeError as error:  # There are as many as there can be.
            dialed.set_exception(OSError(str(error)))

    def _forget(self, link: Link) -> None:
        if link is self._link:
            self._link = None
        if link is self._second:
            self._second = None
        link.drop()

    # --- the end ---

    def _farewell(self) -> None:
        """The last words are under way; waits a moment for the server to have heard them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._welcome.done():
            self._welcome.set_result(None)
        if self._link is None and self._second is None:
            _resolve(self._gone)
        elif not self._gone.done() and not self._leaving:
            self._leaving = True
            if self._second is not None:
                # Over a second connection too, whose Hello the server may have heard.
                self._second.put(wire.encode(wire.Goodbye()))
            self.loop.call_later(FAREWELL_TIMEOUT, self.abandon)

    async def close(self) -> None:
        """Says goodbye, which frees everything at once, and waits a moment for its answer."""
        if self.is_forked or self.loop.is_closed():
            return
        if self.desk.core.end is None:
            self.desk.core.goodbye()
            self.turn()
        await asyncio.wait([self._gone], timeout=FAREWELL_TIMEOUT + 0.5)

    def abandon(self) -> None:
        """Closes everything."""
        if self.desk.core.end is None:
            self.desk.core.goodbye()
            data = self.desk.settle()
            if self._link is not None:
                self._link.put(data)
        for link in (self._link, self._second):
            if link is not None:
                self._forget(link)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        _resolve(self._gone)

    def say_goodbye(self) -> None:
        """At the end of the process, when no loop runs any more."""
        transport = self._link.transport if self._link is not None else None
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is None or sock.fileno() < 0:
            return
        data = wire.encode(wire.Goodbye())
        if self._link is not None and self._link.secure is not None:
            data = self._link.secure.seal(data)
        with socket.socket(fileno=os.dup(sock.fileno())) as copy:
            copy.send(data)


def _resolve(answer: "asyncio.Future[None]") -> None:
    if not answer.done():
        answer.set_result(None)


def _close_result(dialed: "asyncio.Future[_dial.Connection]") -> None:
    if not dialed.cancelled() and dialed.exception() is None:
        dialed.result().close()


@_last.at_the_end
def _say_goodbye() -> None:
    for session in list(_sessions):
        if not session.is_forked and session.desk.core.end is None:
            try:
                session.say_goodbye()
            except (OSError, ValueError):
                pass
