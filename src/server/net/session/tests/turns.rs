//! A client with many or expensive messages takes nobody's turn.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;

use super::*;

const TTL_MS: u32 = 2_000;

/// A Hello for a session with a short lease.
fn short_lived() -> ClientMessage {
    let mut hello = hello(Attach::New);
    if let ClientMessage::Hello(wire::Hello { ttl_ms, .. }) = &mut hello {
        *ttl_ms = TTL_MS;
    }
    hello
}

#[tokio::test(start_paused = true)]
async fn who_asks_a_thousand_dear_questions_keeps_nobody_waiting() {
    local(async {
        let mut bench = Bench::new();
        let (hog, bystander) = (bench.open().await, bench.open().await);
        let question = ClientMessage::Inspect { query_id: 1, query: Query::Locks { cursor: 0 } };
        for _ in 0..4 {
            hog.submit(vec![question.clone(); 400]);
        }
        bystander.submit(vec![ClientMessage::KeepAlive { sequence: 7 }]);
        let (mut answered, mut kept) = (0, Vec::new());
        while kept.is_empty() {
            yield_now().await;
            answered += hog.take().len();
            kept = bystander.take();
        }
        assert_eq!(kept, [ServerMessage::KeptAlive { sequence: 7 }]);
        assert!((1..50).contains(&answered), "{answered} of the others were answered before");
        settle().await;
        assert_eq!(answered + hog.take().len(), 1_600, "and all of them in the end");
    })
    .await;
}

/// A stream that always has more to read, at once, and takes whatever it is told.
struct Flood {
    /// What is read first.
    hello: BytesMut,
    /// What each read after that brings.
    more: BytesMut,
    /// How many reads there may be before it falls silent; only a test that fails gets so far.
    left: Rc<Cell<usize>>,
}

impl Flood {
    const READS_MAX: usize = 10_000;

    fn new(attach: Attach) -> (Self, Rc<Cell<usize>>) {
        let (mut first, mut more) = (BytesMut::new(), BytesMut::new());
        encode_frame(&hello(attach), &mut first).unwrap();
        encode_frame(&account_of_nothing(), &mut more).unwrap();
        let left = Rc::new(Cell::new(Self::READS_MAX));
        (Self { hello: first, more, left: Rc::clone(&left) }, left)
    }

    fn next(&mut self) -> Option<BytesMut> {
        if !self.hello.is_empty() {
            return Some(self.hello.split());
        }
        self.left.set(self.left.get().checked_sub(1)?);
        Some(self.more.clone())
    }
}

impl AsyncRead for Flood {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Task<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(read) = self.get_mut().next() else { return Poll::Pending };
        buffer.put_slice(&read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(self: Pin<&mut Self>, _: &mut Task<'_>, said: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(said.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Task<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Socket for Flood {
    fn read_at_once(&mut self, buffer: &mut BytesMut) -> Option<io::Result<usize>> {
        let read = self.next()?;
        buffer.extend_from_slice(&read);
        Some(Ok(read.len()))
    }
}

/// To read at once takes nothing of tokio's budget, so nothing but [`SUBMITS_MAX`] ends the turn of a flood.
#[tokio::test(start_paused = true)]
async fn who_always_has_more_to_say_leaves_the_others_their_turns() {
    local(async {
        // Of the first the ear hears everything, of the other the actor.
        for attach in [Attach::New, Attach::Observer] {
            let mut bench = Bench::new();
            let (flood, left) = Flood::new(attach);
            let place = Place::of_many(&bench.counters);
            let (connection, shared) = (bench.next_connection(), bench.shared());
            Session::new(flood, connection, None, Certified::default(), place, shared).begin();
            let mut bystander = Peer::open(&mut bench).await;
            let reads_left = Rc::clone(&left);
            // In a task of its own, which takes turns with theirs.
            let read_between = tokio::task::spawn_local(async move {
                let mut read_between = Vec::new();
                for sequence in 1..=20 {
                    let before = reads_left.get();
                    bystander.send(&[ClientMessage::KeepAlive { sequence }]).await;
                    assert_eq!(bystander.next().await, ServerMessage::KeptAlive { sequence });
                    read_between.push(before - reads_left.get());
                }
                read_between
            });
            let read_between = read_between.await.unwrap();
            assert!(read_between.iter().all(|reads| *reads <= 4 * SUBMITS_MAX), "{read_between:?}");
            assert!(read_between.iter().sum::<usize>() >= 20, "nobody floods: {read_between:?}");
            // It goes on where others say nothing.
            let before = left.get();
            settle().await;
            assert!(left.get() < before);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_behind_much_that_it_said_ends_when_that_is_done() {
    local(async {
        let mut bench = Bench::new();
        let (hog, heir) = (bench.open().await, bench.open().await);
        let question = ClientMessage::Inspect { query_id: 1, query: Query::Locks { cursor: 0 } };
        hog.submit(vec![question; 100]);
        hog.submit(vec![request(1, "printer"), ClientMessage::Goodbye]);
        hog.disconnect();
        heir.submit(vec![request(1, "printer")]);
        settle().await;
        assert_eq!(hog.take().len(), 100 + 2);
        heir.take_grant(1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_does_not_end_while_what_would_have_renewed_it_lies_unread() {
    local(async {
        let mut bench = Bench::new();
        let mut holder = Peer::connect(&mut bench);
        holder.send(&[short_lived(), request(1, "printer")]).await;
        assert!(matches!(holder.next().await, ServerMessage::Welcome { .. }));
        let token = grant_of(&holder.next().await, 1);
        let other = bench.open().await;
        sleep(Duration::from_millis(1_900)).await;
        // In time, but for the next 300 ms the coordinator is busy with something else.
        holder.send(&[ClientMessage::KeepAlive { sequence: 5 }]).await;
        bench.clock.stand_still(Duration::from_millis(300));
        other.submit(vec![request(1, "printer")]);
        settle().await;
        assert_eq!(holder.next().await, ServerMessage::KeptAlive { sequence: 5 });
        other.take_queued(1);
        // And with nothing unread, it ends when it is due.
        sleep(Duration::from_millis(1_950)).await;
        assert_eq!(other.take(), []);
        sleep(Duration::from_millis(100)).await;
        assert!(other.take_grant(1) > token);
    })
    .await;
}
