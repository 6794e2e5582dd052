//! Clients of the Redis dialect: programs that lock by `SET NX PX` and scripts, and believe for as long as
//! they may, which is so long from when they *asked* on, by a clock of theirs.
//!
//! They contend for the locks of the native clients, and all of them are judged as one. Their way is as bad
//! as any: what they hear comes late or never, and then they believe nothing.
//!
//! Where a run of the coordinator has lost all that the run before had, as after a disk that failed, their holds
//! are gone, which the dialect says. From then on nobody believes in them.

use std::fmt::Write as _;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::diary::{Book, Diary};
use super::network::{Network, STRANGERS};
use super::process::{Process, SkewedClock};
use super::stream::{Side, Stream, millis};
use crate::client::{Connector, Whither};
use crate::testing::dialect::{self, BEGINNING, WAIT_MS_MAX};
use crate::testing::fuzz::Random;
use crate::testing::history::{How, RequestName, Wanted, What};

/// The locks for which they contend, of those of the others.
const LOCKS: [&str; 2] = ["lock/1", "lock/2"];
/// One that only native clients hold, whatever is said of it here.
const NATIVE: &str = "lock/3";
/// Longest pause between two requests.
const PAUSE_MS_MAX: u64 = 600;
/// Longest wait for an answer, beside one in line.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest time for which the way of one is dark.
const FAULT_MS_MAX: u64 = 3_000;
/// Longest pause between two faults.
const FAULT_PAUSE_MS_MAX: u64 = 3_000;

/// All of them.
pub(super) struct Strangers(Vec<Process>);

impl Strangers {
    /// Starts so many.
    pub(super) fn start(
        network: &Network,
        book: &Rc<Book>,
        random: &mut Random,
        count: usize,
    ) -> Self {
        let start = |client| {
            let mut random = Random::new(random.next());
            let diary = Diary::new(Rc::clone(book), client, SkewedClock::any(&mut random));
            let network = network.clone();
            Process::start(Stranger { diary, network, random, link: None }.run())
        };
        Self((STRANGERS..).take(count).map(start).collect())
    }

    /// Waits for all of them to come to an end.
    pub(super) async fn ended(mut self) {
        join_all(self.0.iter_mut().map(Process::ended)).await;
    }
}

/// Has their ways be bad until `end`.
pub(super) async fn strike(network: &Network, mut random: Random, count: usize, end: Instant) {
    while count > 0 && Instant::now() < end {
        sleep(millis(&mut random, FAULT_PAUSE_MS_MAX)).await;
        let client = STRANGERS + random.below(count) as u64;
        let length = millis(&mut random, FAULT_MS_MAX);
        match random.below(6) {
            0 => network.cut(client),
            1 => network.forget(client),
            2 => network.darken(client, Side::Client, length),
            3 => network.darken(client, Side::Server, length),
            4 => network.hold_up(client, Side::Client, length),
            _ => network.slow_down(client, millis(&mut random, 1_600), length),
        }
    }
}

/// One of them.
struct Stranger {
    /// Where it writes.
    diary: Diary,
    /// How it reaches the coordinator.
    network: Network,
    /// Decides what it does.
    random: Random,
    /// Its connection, if it has one.
    link: Option<BufReader<Stream>>,
}

/// What it holds.
struct Held {
    request: RequestName,
    lock: &'static str,
    value: String,
    token: u64,
}

impl Stranger {
    /// Locks this and that until the run is over.
    async fn run(mut self) {
        while !self.diary.book().is_over() {
            if self.random.once_in(8) {
                self.meddle().await;
            }
            if let Some(held) = self.acquire().await {
                self.use_it(held).await;
            }
            sleep(millis(&mut self.random, PAUSE_MS_MAX)).await;
        }
    }

    /// Says commands, and hears as many answers: lines, of which those of bytes have their own. None: nobody
    /// knows what came of it.
    async fn say(&mut self, commands: &[&[&str]], patience: Duration) -> Option<Vec<String>> {
        let forgotten = self.diary.book().forgotten();
        let answers = timeout(patience, self.exchange(commands)).await;
        let Ok(Ok(answers)) = answers else {
            self.link = None;
            return None;
        };
        // What was said by a run of which nothing is left, counts no more.
        (self.diary.book().forgotten() == forgotten).then_some(answers)
    }

    async fn exchange(&mut self, commands: &[&[&str]]) -> io::Result<Vec<String>> {
        let link = match &mut self.link {
            Some(link) => link,
            link @ None => {
                let stream = self.network.route(self.diary.client).connect(Whither::Back).await?;
                link.insert(BufReader::new(stream))
            }
        };
        let mut said = String::new();
        for words in commands {
            write!(said, "*{}\r\n", words.len()).map_err(io::Error::other)?;
            for word in *words {
                write!(said, "${}\r\n{word}\r\n", word.len()).map_err(io::Error::other)?;
            }
        }
        link.get_mut().write_all(said.as_bytes()).await?;
        let mut answers = Vec::new();
        for _ in commands {
            let mut answer = String::new();
            if link.read_line(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            answers.push(answer.trim_end().to_owned());
        }
        Ok(answers)
    }

    /// Says what must have no effect on anybody.
    async fn meddle(&mut self) {
        let lock = *self.random.pick(&LOCKS);
        let commands: &[&[&str]] = &[&dialect::free(lock, BEGINNING), &["DEL", NATIVE]];
        let answers = self.say(commands, PATIENCE).await;
        if answers.is_some_and(|answers| answers[0] != ":0") {
            self.diary.complain("something was freed by the beginning of its value".to_owned());
        }
    }

    /// Asks, and writes down what came of it.
    async fn acquire(&mut self) -> Option<Held> {
        let lock = *self.random.pick(&LOCKS);
        let term = dialect::term_ms(&mut self.random);
        let request = self.diary.asks(vec![Wanted { lock: lock.into(), how: How::Exclusive }]);
        let value = dialect::value(request.client, request.number);
        let px = term.to_string();
        let asked = Instant::now();
        let is_in_line = self.random.once_in(2);
        let answers = if is_in_line {
            let wait = millis(&mut self.random, WAIT_MS_MAX);
            let limit = (wait.as_millis() + 1).to_string();
            let words = ["COORDINATOR.WAIT", lock, &value, "PX", &px, "TIMEOUT", &limit];
            self.say(&[&words], wait + PATIENCE).await
        } else {
            let set = ["SET", lock, &value, "NX", "PX", &px];
            self.say(&[&set, &["COORDINATOR.TOKEN", lock]], PATIENCE).await
        };
        let Some(answers) = answers else {
            self.diary.count("redis: nobody knows");
            self.diary.ends(request, What::Abandoned);
            return None;
        };
        let last = answers.last().map(String::as_str).unwrap_or_default();
        let token = last.strip_prefix(':').and_then(|token| token.parse().ok());
        let is_granted = is_in_line || answers[0] == "+OK";
        let Some(token) = token.filter(|_| is_granted) else {
            self.refused(request, &answers[0]);
            return None;
        };
        let until = asked + self.believed(Duration::from_millis(term));
        if until <= Instant::now() {
            self.diary.ends(request, What::Abandoned);
            return None;
        }
        self.diary.count(if is_in_line { "redis: granted in line" } else { "redis: granted" });
        self.diary.granted_until(request, token, until);
        Some(Held { request, lock, value, token })
    }

    /// For how long it believes in a term, by true time.
    fn believed(&self, term: Duration) -> Duration {
        self.diary.clock.true_length(dialect::believed(term))
    }

    fn refused(&self, request: RequestName, answer: &str) {
        if !dialect::is_no(answer) {
            self.diary.complain(format!("{request}: {answer}"));
        }
        self.diary.count("redis: refused");
        self.diary.ends(request, What::Refused);
    }

    /// Holds for a while, has it last longer, writes, and gives back or forgets.
    async fn use_it(&mut self, held: Held) {
        let Held { request, lock, ref value, token } = held;
        while let Some(until) = self.diary.believed_until(request) {
            self.diary.writes_with(request, lock, token);
            let pause = millis(&mut self.random, 500);
            sleep_until(until.min(Instant::now() + pause)).await;
            if until <= Instant::now() || self.diary.book().is_over() || self.random.once_in(3) {
                break;
            }
            if self.random.once_in(3) {
                self.extend(&held).await;
            }
        }
        self.diary.ends_belief(request);
        if self.random.once_in(4) {
            // It dies, and its lock is free in time.
            return self.diary.ends(request, What::Abandoned);
        }
        self.diary.note(request, What::ReleaseInvoked);
        let answers = self.say(&[&dialect::free(lock, value)], PATIENCE).await;
        self.diary.count(match answers.as_deref() {
            Some([answer]) if answer == ":1" => "redis: released",
            Some(_) => "redis: released too late",
            None => "redis: release unanswered",
        });
        self.diary.note(request, What::ReleaseAnswered);
    }

    async fn extend(&mut self, held: &Held) {
        let term = dialect::term_ms(&mut self.random);
        let until = Instant::now() + self.believed(Duration::from_millis(term));
        let px = term.to_string();
        // If that is shorter, it may be so before this is known.
        self.diary.believes_not_longer(held.request, until);
        let words = dialect::extend(held.lock, &held.value, &px);
        let answers = self.say(&[&words], PATIENCE).await;
        if answers.is_some_and(|answers| answers[0] == ":1") {
            self.diary.count("redis: extended");
            self.diary.believes_until(held.request, until);
        }
    }
}
