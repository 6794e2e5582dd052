//! Who is at the other end of a connection, and whether it is kept for a stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::server::Certified;

/// The other end of a connection; each of its requests has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    /// Where it comes from.
    pub(super) peer: Option<SocketAddr>,
    /// The names in its certificate.
    pub(super) certified: Certified,
    /// For how long the connection is kept.
    pub(super) life: Arc<Life>,
}

/// For how long a connection is kept: while a stream goes over it, and not a moment longer than its
/// peer reads that.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// Streams that go over it now.
    streams: AtomicUsize,
    /// Rings when it is to be closed at once.
    cut: Notify,
}

/// A stream that goes over a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Streaming(Arc<Life>);

impl Life {
    /// A stream begins.
    pub(super) fn begin(self: &Arc<Self>) -> Streaming {
        self.streams.fetch_add(1, Ordering::AcqRel);
        Streaming(Arc::clone(self))
    }

    /// Whether a stream goes over it.
    pub(super) fn is_streaming(&self) -> bool {
        self.streams.load(Ordering::Acquire) > 0
    }

    /// Waits until it is to be closed at once.
    pub(super) async fn is_cut(&self) {
        self.cut.notified().await;
    }
}

impl Streaming {
    /// Has the connection closed: its peer does not read.
    pub(super) fn cut(&self) {
        self.0.cut.notify_one();
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}
