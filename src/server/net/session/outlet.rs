//! The outlet: what the Coordinator has for a peer, written where it is said.
//!
//! A session and the Coordinator on one thread share the session's stream. So an answer needs no
//! envelope, no wake-up and no poll of the session: it is written while it is delivered. Only frames that
//! ask nothing of the session go this way, and only if nothing is on its way to the session's mailbox. So
//! the order stays that of the Coordinator's decisions.
//!
//! What the socket does not take at once goes into the outbox. There it is counted, bounded and written
//! as everything else, by the session, which the socket wakes.

use std::cell::RefCell;

use super::super::socket::Socket;
use super::OUTBOX_BYTES_MAX;
use super::io::Transport;
use crate::server::desk::turn::Deliver;
use crate::server::gate::{Outlet, Said};

impl<S: Socket> Outlet for RefCell<Transport<S>> {
    fn say(&self, deliver: &Deliver) -> Said {
        self.borrow_mut().say(deliver)
    }
}

impl<S: Socket> Transport<S> {
    /// Writes what is delivered, if that is all there is to it.
    fn say(&mut self, deliver: &Deliver) -> Said {
        let is_next = self.is_open && self.mailed == 0 && deliver.is_plain();
        if !is_next || self.outbox.len() > OUTBOX_BYTES_MAX || self.waker.is_none() {
            self.mailed += 1;
            return Said::NotYet;
        }
        let Some(waker) = self.waker.take() else { return Said::NotYet };
        if !self.outbox.say(&mut self.stream, &waker, &deliver.frames) {
            self.settle();
        }
        self.waker = Some(waker);
        Said::AtOnce
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context as Task, Waker};

    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;
    use crate::server::ledger::Ledger;
    use crate::wire::ServerMessage;

    fn kept_alive(sequence: u64) -> Deliver {
        Deliver::of(&[ServerMessage::KeptAlive { sequence }])
    }

    /// An open session's transport, the peer's end of it, which keeps so many bytes, and the books.
    fn open(bytes: usize) -> (Transport<DuplexStream>, DuplexStream, Arc<Ledger>) {
        let (ours, theirs) = duplex(bytes);
        let ledger = Arc::new(Ledger::default());
        let mut transport = Transport::new(ours, ledger.open());
        transport.is_open = true;
        transport.waker = Some(Waker::noop().clone());
        (transport, theirs, ledger)
    }

    #[tokio::test]
    async fn an_answer_is_written_where_it_is_said() {
        let (mut transport, mut peer, ledger) = open(1024);
        let said = kept_alive(7);
        assert_eq!(transport.say(&said), Said::AtOnce);
        let mut read = vec![0; said.frames.len()];
        peer.read_exact(&mut read).await.unwrap();
        assert_eq!(read, said.frames);
        assert_eq!((transport.outbox.written(), ledger.total()), (read.len() as u64, 0));
    }

    #[tokio::test]
    async fn what_the_socket_does_not_take_waits_in_the_outbox_in_order_and_is_counted() {
        let (mut transport, mut peer, ledger) = open(24);
        let (mut said, mut read) = (Vec::new(), vec![0; 4 * 16]);
        for sequence in 1..=4 {
            let deliver = kept_alive(sequence);
            assert_eq!(transport.say(&deliver), Said::AtOnce);
            said.extend_from_slice(&deliver.frames);
        }
        assert_eq!(transport.outbox.len(), said.len() - 24);
        assert!(ledger.total() >= transport.outbox.len());
        let mut task = Task::from_waker(Waker::noop());
        for part in read.chunks_mut(8) {
            peer.read_exact(part).await.unwrap();
            let _ = transport.poll_write(&mut task);
        }
        transport.settle();
        assert_eq!((read, ledger.total()), (said, 0));
    }

    #[test]
    fn nothing_overtakes_what_is_on_its_way_to_the_session() {
        let (mut transport, _peer, _ledger) = open(1024);
        let welcome = Deliver { welcomes: true, ..kept_alive(1) };
        assert_eq!(transport.say(&welcome), Said::NotYet);
        assert_eq!(transport.say(&kept_alive(2)), Said::NotYet);
        // The session takes one from its mailbox, then the other.
        transport.mailed -= 1;
        assert_eq!(transport.say(&kept_alive(3)), Said::NotYet);
        transport.mailed -= 2;
        assert_eq!(transport.say(&kept_alive(4)), Said::AtOnce);
    }

    #[test]
    fn a_session_that_is_not_open_says_everything_itself() {
        let (mut transport, _peer, _ledger) = open(1024);
        transport.is_open = false;
        assert_eq!(transport.say(&kept_alive(1)), Said::NotYet);
    }

    #[test]
    fn who_leaves_as_much_unread_as_may_be_is_the_sessions_to_judge() {
        let (mut transport, _peer, _ledger) = open(8);
        transport.outbox.extend_from_slice(&vec![0; OUTBOX_BYTES_MAX]);
        assert_eq!(transport.say(&kept_alive(1)), Said::AtOnce);
        assert_eq!(transport.say(&kept_alive(2)), Said::NotYet);
    }
}
