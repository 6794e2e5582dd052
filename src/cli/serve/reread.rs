//! The configuration, read again while the server runs: by SIGHUP, because a principal that may asks for it over
//! HTTP, or because a file of certificates or rules has changed.
//!
//! It is one transaction: settings, files for TLS and access file are read, and only if all of them are without a
//! mistake, all that can change takes their place. A mistake in any of them changes nothing, and one line of the log
//! names the piece. Nothing fails between the first change and the last. Files may be where reading takes for ever,
//! so that is done by a thread of its own.
//!
//! The audit log is opened anew whatever else is wrong: who rotates it has moved it away.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use coordinator::http::{ReloadMistake, ReloadRequest, Reloaded, Reloads};
use coordinator::server::{Audit, ServerHandle};
use coordinator::tls::ServerTls;

use super::notify;
use super::pieces::{Flaw, Piece, Pieces};
use super::shown;
use super::watched::{Contents, Watched};
use crate::cli::log as logging;
use crate::cli::settings::contradictions;
use crate::cli::settings::reload::Reload;
use crate::cli::settings::sources::Sources;
use crate::cli::settings::{Origin, Settings, TABLE};
use crate::cli::text::errors::Failure;

/// Reads the configuration again when it is asked to.
pub(crate) struct Reread {
    /// To the thread. Who asks while another has just asked, asks for the same.
    asked: SyncSender<Ask>,
}

/// Who wants it.
enum Ask {
    /// Whoever may send signals to this process.
    Signal,
    /// A principal, who wants to hear what becomes of it.
    Http(ReloadRequest),
    /// Nobody: a file has changed.
    Changed,
}

impl Ask {
    /// As the log has it.
    fn cause(&self) -> String {
        match self {
            Self::Signal => "SIGHUP".to_owned(),
            Self::Changed => "a file of certificates or rules has changed".to_owned(),
            Self::Http(ReloadRequest { by, peer, .. }) => {
                let peer = peer.map(|peer| format!(" at {peer}")).unwrap_or_default();
                format!("HTTP, by {by}{peer}")
            }
        }
    }
}

/// What takes another configuration over.
pub(super) struct Again {
    /// What both ports show and ask for.
    pub(super) tls: Option<ServerTls>,
    /// The audit log, which is opened anew, and told.
    pub(super) audit: Audit,
    /// The server, which is told of other rules.
    pub(super) handle: ServerHandle,
    /// Whether the access file names nobody.
    pub(super) names_nobody: bool,
}

/// A server that runs.
struct Running {
    /// The settings of the start, by which most of it runs.
    at_start: Settings,
    /// Those that hold now.
    now: Settings,
    /// What takes others over.
    again: Again,
    /// Who asked while files were being read for long.
    later: Option<Ask>,
}

/// Files that are read for longer than this are told of.
const READING_LONG: Duration = Duration::from_secs(10);
/// How often it is looked then who asks.
const STUCK_LOOKS: Duration = Duration::from_secs(1);
/// What is told of them.
const STUCK: &str =
    "the files of the configuration have been read for over 10 s, with no end in sight";

/// What is told of rules that are left out.
const CUT_OFF: &str = "the access file names nobody any more, as one that was cut off, so the rules of before hold; \
                       if nobody is to come in any more, send SIGHUP";

/// A configuration that was read whole.
struct Next {
    /// What was read, in what can change; of the rest, what was before.
    settings: Settings,
    /// Certificates and rules.
    pieces: Pieces,
    /// What has changed and waits for a restart.
    waiting: Vec<&'static str>,
}

impl Reread {
    /// Gets ready. The server runs by `settings`, which `flags` were a source of.
    pub(crate) fn start(
        settings: &Settings,
        flags: BTreeMap<&'static str, String>,
        again: Again,
    ) -> io::Result<Self> {
        let (asked, asks) = sync_channel(1);
        let mut running =
            Running { at_start: settings.clone(), now: settings.clone(), again, later: None };
        thread::Builder::new().name("settings".to_owned()).spawn(move || {
            let Some(mut watched) = running.look(&asks, None) else { return };
            while let Some(ask) = running.next(&asks, &mut watched) {
                notify::reloading();
                if !matches!(ask, Ask::Changed) {
                    running.again.audit.reopen();
                }
                let Some((found, read)) = running.read(&asks, flags.clone()) else { return };
                let outcome = running.reload(read, &ask);
                notify::ready();
                if let Ask::Http(ReloadRequest { done, .. }) = ask {
                    // Who asked may be gone.
                    let _ = done.send(outcome);
                }
                match running.look(&asks, Some(found)) {
                    Some(seen) => watched = seen,
                    None => return,
                }
            }
        })?;
        Ok(Self { asked })
    }

    /// Has the configuration read again, soon.
    pub(crate) fn ask(&self) {
        let _will_be_read_anyway = self.asked.try_send(Ask::Signal);
    }

    /// Has it read again for those who ask over HTTP.
    pub(crate) fn for_http(&self) -> Reloads {
        let asked = self.asked.clone();
        Reloads::new(move |request| asked.try_send(Ask::Http(request)).is_ok())
    }
}

/// Reads the settings, and tells all that is wrong with them.
fn read(flags: BTreeMap<&'static str, String>) -> Result<Settings, Vec<Flaw>> {
    let (sources, mut mistakes) = Sources::gather(flags);
    let (settings, wrong) = Settings::gather(&sources);
    mistakes.extend(wrong.into_iter().map(|(_, mistake)| mistake));
    match settings {
        Some(settings) if mistakes.is_empty() => Ok(settings),
        _ => Err(flaws(mistakes)),
    }
}

fn flaws(mistakes: Vec<Failure>) -> Vec<Flaw> {
    mistakes.into_iter().map(|failure| Flaw { piece: Piece::Settings, failure }).collect()
}

impl Running {
    /// Waits for somebody who asks, or a file that has changed. None: the server is gone.
    fn next(&mut self, asks: &Receiver<Ask>, watched: &mut Watched) -> Option<Ask> {
        loop {
            if let Some(ask) = self.later.take() {
                return Some(ask);
            }
            match asks.recv_timeout(watched.pause()) {
                Ok(ask) => return Some(ask),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.now.clone();
                    if watched.are_changed(self.patiently(asks, move || Contents::of(&now))?) {
                        return Some(Ask::Changed);
                    }
                }
            }
        }
    }

    /// What the files have in them now; `found` if it is of the same files, and not of now.
    fn look(&mut self, asks: &Receiver<Ask>, found: Option<Contents>) -> Option<Watched> {
        let now = self.now.clone();
        let look = move || match found {
            Some(found) => found.if_of(&now),
            None => Contents::of(&now),
        };
        self.patiently(asks, look).map(Watched::new)
    }

    /// Reads the configuration, and what the files have in them before that: what changes meanwhile is found by
    /// the next look.
    fn read(
        &mut self,
        asks: &Receiver<Ask>,
        flags: BTreeMap<&'static str, String>,
    ) -> Option<(Contents, Result<Next, Vec<Flaw>>)> {
        let (at_start, now) = (self.at_start.clone(), self.now.clone());
        self.patiently(asks, move || {
            let found = Contents::of(&now);
            (found, read(flags).and_then(|read| prepare(&at_start, &now, read)))
        })
    }

    /// Has a thread of its own look at files, which may take for ever. If it takes long, that is told, and whoever
    /// asks meanwhile hears so. None: the server is gone, or there can be no thread.
    fn patiently<T: Send + 'static>(
        &mut self,
        asks: &Receiver<Ask>,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = sync_channel(1);
        let reading = thread::Builder::new().name("reading".to_owned()).spawn(move || {
            // Nobody may wait for it any more.
            let _ = tell.send(look());
        });
        if let Err(why) = reading {
            log::error!(
                "the configuration is not read again any more, for there is no thread: {why}"
            );
            return None;
        }
        let mut pause = READING_LONG;
        loop {
            match told.recv_timeout(pause) {
                Ok(done) => return Some(done),
                Err(RecvTimeoutError::Disconnected) => {
                    log::error!(
                        "the configuration is not read again any more, for reading it has failed: restart the coordinator"
                    );
                    notify::ready();
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if pause == READING_LONG {
                        log::error!(
                            "{STUCK}: is a file on a disk that does not answer, or a pipe?"
                        );
                        // It serves, whatever becomes of this: a supervisor does not wait for it.
                        notify::ready();
                        self.again.audit.note("reload", "refused", STUCK);
                        self.again.handle.reloaded(false);
                        self.later.get_or_insert(Ask::Changed);
                    }
                    pause = STUCK_LOOKS;
                    self.answer_meanwhile(asks)?;
                }
            }
        }
    }

    /// Tells those who ask that files are still being read. None: the server is gone.
    fn answer_meanwhile(&mut self, asks: &Receiver<Ask>) -> Option<()> {
        loop {
            match asks.try_recv() {
                Ok(Ask::Signal) => {
                    log::error!("SIGHUP: nothing changed yet, for {STUCK}");
                    self.again.audit.reopen();
                    self.later = Some(Ask::Signal);
                }
                Ok(Ask::Http(ReloadRequest { done, .. })) => {
                    let piece = Piece::Settings.to_string();
                    let what = format!("{STUCK}; it is read again once that has ended");
                    // Who asked may be gone.
                    let _ = done.send(Err(vec![ReloadMistake { piece, what }]));
                }
                Ok(Ask::Changed) => {}
                Err(TryRecvError::Empty) => return Some(()),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
    }

    /// Takes all of it over, or nothing; but of rules that nobody has meant only that they are there.
    fn reload(
        &mut self,
        read: Result<Next, Vec<Flaw>>,
        ask: &Ask,
    ) -> Result<Reloaded, Vec<ReloadMistake>> {
        match read {
            Ok(mut next) => {
                let is_cut_off = leave_out_unmeant(&mut next, ask, self.again.names_nobody);
                let reloaded = self.take_over(next, ask);
                if is_cut_off {
                    self.note(ask, "refused", CUT_OFF);
                    self.again.handle.reloaded(false);
                }
                Ok(reloaded)
            }
            Err(flaws) => {
                let mistakes = flaws.iter().map(|Flaw { piece, failure }| ReloadMistake {
                    piece: piece.to_string(),
                    what: failure.in_one_line(),
                });
                let mistakes: Vec<ReloadMistake> = mistakes.collect();
                self.refuse(&mistakes, ask);
                Err(mistakes)
            }
        }
    }

    /// Tells that nothing has changed, and why.
    fn refuse(&self, mistakes: &[ReloadMistake], ask: &Ask) {
        let Some(ReloadMistake { piece, what }) = mistakes.first() else { return };
        let more = match mistakes.len() - 1 {
            0 => String::new(),
            more => format!("; and {more} more, all told by coordinator config check"),
        };
        log::error!("{}: nothing changed, for a mistake in the {piece}: {what}{more}", ask.cause());
        self.note(ask, "refused", &format!("{piece}: {what}{more}"));
        self.again.handle.reloaded(false);
    }

    /// Tells the audit log.
    fn note(&self, ask: &Ask, result: &'static str, why: &str) {
        match ask {
            Ask::Signal | Ask::Changed => self.again.audit.note("reload", result, why),
            Ask::Http(ReloadRequest { by, peer, .. }) => {
                self.again.audit.note_of((by, *peer), "reload", result, why);
            }
        }
    }

    /// Nothing in here can fail.
    fn take_over(&mut self, Next { settings, pieces, waiting }: Next, ask: &Ask) -> Reloaded {
        let Again { tls, handle, names_nobody, .. } = &mut self.again;
        let taken_over = taken_over(&self.now, &settings, &pieces);
        let shown = [shown(&self.now), shown(&settings)];
        *names_nobody = pieces.names_nobody();
        if let [Some(was), Some(is)] = shown
            && was != is
        {
            log::warn!("{}: from now on, clients {is}; before, they {was}", ask.cause());
        }
        for doubt in &pieces.doubts {
            log::warn!("{doubt}");
        }
        handle.certificates_expire(pieces.expires());
        if let Some((tls, read)) = tls.as_ref().zip(pieces.tls) {
            tls.take_over(read);
        }
        if let Some(access) = pieces.access {
            handle.change_rules(Arc::new(access));
        }
        if settings.log != self.now.log {
            logging::set_filter(&settings.log);
        }
        handle.reloaded(true);
        let mut told = taken_over.join("; ");
        if settings.log == self.now.log {
            // Whoever changed it elsewhere than it is read should see that.
            let separator = if told.is_empty() { "" } else { "; " };
            told.insert_str(0, &format!("the log filter is still {:?}{separator}", settings.log.0));
        }
        let cause = ask.cause();
        self.note(ask, "ok", &told);
        logging::tell(&format!("{cause}: reloaded: {told}"));
        if !waiting.is_empty() {
            let waiting = waiting.join(", ");
            log::warn!("{cause}: changed, but effective only after a restart: {waiting}");
        }
        self.now = settings;
        let waiting = waiting.into_iter().map(str::to_owned).collect();
        Reloaded { taken_over, waiting, doubts: pieces.doubts }
    }
}

/// Leaves out rules for nobody that nobody has asked for: they come of a file that was cut off, or is yet to be
/// written. A certificate that was renewed meanwhile does not wait for that. Says whether there were any.
fn leave_out_unmeant(next: &mut Next, ask: &Ask, named_nobody: bool) -> bool {
    if named_nobody || !next.pieces.names_nobody() || !matches!(ask, Ask::Changed) {
        return false;
    }
    next.pieces.access = None;
    // What is doubtful about them does not hold either.
    let file = next.settings.access_file.iter().map(|it| format!("{}:", it.display()));
    let file = file.collect::<String>();
    next.pieces.doubts.retain(|doubt| !doubt.starts_with(&file));
    next.pieces.doubts.push(CUT_OFF.to_owned());
    true
}

/// Reads what goes with these settings. Nothing has changed by that.
fn prepare(at_start: &Settings, now: &Settings, read: Settings) -> Result<Next, Vec<Flaw>> {
    let contradictions = contradictions::of_every_command(&read)
        .into_iter()
        .chain(contradictions::of_a_server(&read));
    let mut wrong = flaws(contradictions.map(|it| it.failure).collect());
    let waiting = waiting(at_start, &read);
    let settings = with_what_was_settled(now, read);
    let (pieces, unusable) = Pieces::read(&settings, SystemTime::now());
    wrong.extend(unusable);
    if wrong.is_empty() { Ok(Next { settings, pieces, waiting }) } else { Err(wrong) }
}

/// The same settings, in which there is TLS and there are rules if there were at the start.
fn with_what_was_settled(now: &Settings, read: Settings) -> Settings {
    let mut settings = read;
    if is_switched(now, &settings).tls {
        settings.tls_cert.clone_from(&now.tls_cert);
        settings.tls_key.clone_from(&now.tls_key);
        settings.tls_client_ca.clone_from(&now.tls_client_ca);
        settings.tls_client_auth = now.tls_client_auth;
        settings.tls_crl.clone_from(&now.tls_crl);
    }
    if is_switched(now, &settings).access {
        settings.access_file.clone_from(&now.access_file);
    }
    // It still listens where it did: that is where credentials would be readable.
    settings.listen = now.listen;
    settings.http_listen = now.http_listen;
    settings.redis_listen = now.redis_listen;
    settings
}

/// What was turned on or off.
struct Switched {
    /// Encryption.
    tls: bool,
    /// Rules.
    access: bool,
}

fn is_switched(now: &Settings, read: &Settings) -> Switched {
    Switched {
        tls: now.tls_cert.is_some() != read.tls_cert.is_some(),
        access: now.access_file.is_some() != read.access_file.is_some(),
    }
}

/// What was taken over, in words.
fn taken_over(was: &Settings, is: &Settings, pieces: &Pieces) -> Vec<String> {
    let mut told = Vec::new();
    if was.log != is.log {
        let (was, filter, origin) = (&was.log.0, &is.log.0, origin_of(is, "log"));
        told.push(format!("the log filter is {filter:?} now ({origin}), it was {was:?}"));
    }
    if pieces.tls.is_some() {
        told.push("certificates, for new connections".to_owned());
    }
    if let (Some(before), Some(now)) = (shown(was), shown(is))
        && before != now
    {
        told.push(format!("clients {now}, before they {before}"));
    }
    if pieces.access.is_some() {
        told.push(format!("access file, {}", pieces.open_to()));
    }
    told
}

/// Where a setting came from.
fn origin_of(settings: &Settings, key: &str) -> String {
    let found = settings.in_force.iter().find(|it| it.key == key);
    match found.map(|it| &it.origin) {
        Some(Origin::File(path, line)) => format!("{}:{line}", path.display()),
        Some(Origin::Environment(name)) => name.clone(),
        Some(Origin::Flag) => format!("--{key}"),
        Some(Origin::Default) | None => "the default".to_owned(),
    }
}

/// The server's settings that have changed and cannot be taken over.
fn waiting(at_start: &Settings, read: &Settings) -> Vec<&'static str> {
    let switched = is_switched(at_start, read);
    let is_other = |key: &str| {
        let text = |of: &Settings| {
            let found = of.in_force.iter().find(|it| it.key == key);
            found.map(|it| it.text.clone())
        };
        text(at_start) != text(read)
    };
    let is_waiting = |key: &str, reload: Reload| match reload {
        Reload::Restart => is_other(key),
        Reload::Sighup => {
            switched.tls && key == "tls-cert" || switched.access && key == "access-file"
        }
        Reload::Command => false,
    };
    TABLE.iter().filter(|row| is_waiting(row.key, row.reload())).map(|row| row.key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: &str) -> Settings {
        let home = ("HOME".to_owned(), "/home/ann".to_owned());
        let sources = Sources::new(BTreeMap::new(), [home]).unwrap();
        Settings::resolve(&sources.with_file("c.toml".into(), file).unwrap()).unwrap()
    }

    #[test]
    fn what_waits_for_a_restart_is_named_and_what_concerns_clients_is_not() {
        let ours = settings("sessions-max = 5\nttl = \"20s\"\nlog = \"info\"\n");
        let read = settings("sessions-max = 6\nttl = \"30s\"\nlog = \"warn\"\n");
        assert_eq!(waiting(&ours, &read), ["sessions-max"]);
        assert!(waiting(&ours, &ours).is_empty());
        let [tls, other] = ["a", "b"]
            .map(|name| settings(&format!("tls-cert = \"{name}\"\ntls-key = \"{name}\"\n")));
        assert!(waiting(&tls, &other).is_empty(), "another file is taken over");
        assert_eq!(waiting(&tls, &ours), ["sessions-max", "tls-cert"]);
        assert_eq!(waiting(&settings(""), &settings("access-file = \"a\"")), ["access-file"]);
    }

    #[test]
    fn whether_there_is_tls_and_whether_there_are_rules_stays_as_it_was_at_the_start() {
        let tls = settings("tls-cert = \"c\"\ntls-key = \"k\"\nlisten = \"127.0.0.1:9\"\n");
        let off = with_what_was_settled(&tls, settings("access-file = \"a\"\n"));
        assert_eq!(off.tls_cert, Some("c".into()));
        assert_eq!((off.access_file, off.listen), (None, tls.listen));
        let other = settings("tls-cert = \"d\"\ntls-key = \"k\"\n");
        assert_eq!(with_what_was_settled(&tls, other).tls_cert, Some("d".into()));
    }

    #[test]
    fn settings_that_contradict_each_other_or_go_with_no_file_are_no_next_configuration() {
        let now = settings("log = \"info\"\ntls-cert = \"/none\"\ntls-key = \"/none\"\n");
        let first = |flaws: Vec<Flaw>| flaws.first().map(|it| it.piece);
        let piece = |file: &str| prepare(&now, &now, settings(file)).err().and_then(first);
        assert_eq!(piece("listen = \"0.0.0.0:1\"\n"), Some(Piece::Settings));
        let files = "log = \"warn\"\ntls-cert = \"/none\"\ntls-key = \"/none\"\n";
        assert_eq!(piece(files), Some(Piece::Certificates));
        let plain = settings("access-file = \"/none\"\n");
        let read = prepare(&plain, &plain, plain.clone()).err().and_then(first);
        assert_eq!(read, Some(Piece::Access));
        let whole = prepare(&settings(""), &settings(""), settings("log = \"warn\"")).ok().unwrap();
        assert_eq!(whole.settings.log.0, "warn");
        assert_eq!(origin_of(&settings("\nlog = \"warn\"\n"), "log"), "c.toml:2");
    }
    #[test]
    fn rules_that_name_nobody_are_taken_over_only_if_somebody_asks_for_it() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("access.toml");
        let now = settings(&format!("access-file = \"{}\"\n", file.display()));
        let next = |text: &str| {
            std::fs::write(&file, text).unwrap();
            prepare(&now, &now, now.clone()).map_err(|flaws| format!("{flaws:?}")).unwrap()
        };
        let left_out = |text: &str, ask: &Ask, named_nobody| {
            let mut next = next(text);
            let is_left_out = leave_out_unmeant(&mut next, ask, named_nobody);
            assert_eq!(next.pieces.access.is_none(), is_left_out, "all else is taken over");
            assert_eq!(next.pieces.doubts == [CUT_OFF], is_left_out);
            is_left_out
        };
        assert!(left_out("", &Ask::Changed, false));
        assert!(!left_out("", &Ask::Signal, false));
        assert!(!left_out("", &Ask::Changed, true), "it named nobody before");
        assert!(!left_out("[anyone]\n", &Ask::Changed, false));
    }
}
