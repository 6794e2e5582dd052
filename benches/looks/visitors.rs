//! Those who look over HTTP: fifty at a time, on every endpoint, some of them over streams.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How many there are.
pub(crate) const VISITORS: usize = 50;
/// Each rests for so long before it asks for the next: somebody who clicks without end, or a script.
const PAUSE: Duration = Duration::from_millis(200);
/// What never ends.
const STREAMS: [&str; 3] = ["/api/v1/live", "/api/v1/live?lock=held%2F1", "/api/v1/events"];
/// What is asked for, one after the other.
const PATHS: [&str; 13] = [
    "/livez",
    "/readyz?verbose",
    "/metrics",
    "/",
    "/assets/app.js",
    "/assets/style.css",
    "/api/v1/server",
    "/api/v1/waits",
    "/api/v1/waits?limit=10",
    "/api/v1/locks",
    "/api/v1/locks?prefix=held%2F99",
    "/api/v1/locks/held%2F1",
    "/api/v1/sessions",
];
/// Of so many visitors one reads a stream.
const STREAM_EVERY: usize = 5;

/// Visitors, until they are told to go.
pub(crate) struct Visitors {
    /// Whether they are to go.
    stop: Arc<AtomicBool>,
    /// What they were answered, by the first line.
    answers: Arc<Mutex<BTreeMap<String, u64>>>,
    /// Where they are.
    thread: JoinHandle<()>,
}

impl Visitors {
    /// Fifty of them come to a port.
    pub(crate) fn come(http: &str) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (http, told, ends) = (http.to_owned(), Arc::clone(&answers), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            // They are on other machines: what they take of this one's processors is not to be measured.
            let _nice = rustix::process::nice(19);
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut all = JoinSet::new();
                for number in 0..VISITORS {
                    all.spawn(visit(http.clone(), number, Arc::clone(&ends), Arc::clone(&told)));
                }
                while all.join_next().await.is_some() {}
            });
        });
        Self { stop, answers, thread }
    }

    /// They go, and tell what they were answered: each first line, and how often.
    pub(crate) fn go(self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("they visit");
        self.answers.lock().expect("they tell").clone()
    }
}

async fn visit(
    http: String,
    number: usize,
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<BTreeMap<String, u64>>>,
) {
    let is_stream = number.is_multiple_of(STREAM_EVERY);
    let mut turn = number;
    while !stop.load(Ordering::Relaxed) {
        let paths = if is_stream { &STREAMS[..] } else { &PATHS[..] };
        let answer = ask(&http, paths[turn % paths.len()], &stop).await;
        *answers.lock().expect("they tell").entry(answer).or_default() += 1;
        turn += 1;
        sleep(PAUSE).await;
    }
}

/// The first line of the answer, once all of it was read; of a stream, once nobody wants it any more.
async fn ask(http: &str, path: &str, stop: &AtomicBool) -> String {
    let Ok(mut stream) = TcpStream::connect(http).await else { return "no connection".to_owned() };
    let asked = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    if stream.write_all(asked.as_bytes()).await.is_err() {
        return "no connection".to_owned();
    }
    let (mut first, mut bytes) = (Vec::new(), vec![0; 64 * 1024]);
    while !stop.load(Ordering::Relaxed) {
        match timeout(PAUSE, stream.read(&mut bytes)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(read)) if first.len() < 64 => first.extend_from_slice(&bytes[..read]),
            Ok(Ok(_)) | Err(_) => {}
        }
    }
    let first = String::from_utf8_lossy(&first).lines().next().unwrap_or("nothing").to_owned();
    first.trim_start_matches("HTTP/1.1 ").to_owned()
}
