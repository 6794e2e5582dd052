//! The thread that writes the audit log, as JSON lines.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use log::{error, info};
use serde::Serialize;

use super::{Audit, ENTRIES_MAX, Entry, Shared};
use crate::server::chatter::Chatter;

/// How long the end of a server waits for what is yet to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The file is its owner's.
const MODE: u32 = 0o600;

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditPlace {
    /// In a file, which is made if it is missing, and added to.
    File(PathBuf),
    /// On standard error, between the lines of the other log.
    StandardError,
}

/// The thread that writes. Dropped, it waits a moment for what is yet to be written.
#[derive(Debug)]
pub struct AuditWriter {
    /// Says that it is over.
    over: Receiver<()>,
    /// Tells the thread that nothing more comes.
    ends: Arc<AtomicBool>,
}

impl Drop for AuditWriter {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // It may be stuck in a disk; nobody waits for that longer than this.
        let _ended_or_not = self.over.recv_timeout(LAST_WORDS);
    }
}

#[cfg(test)]
impl AuditWriter {
    /// Ends it, and waits until all is written, however long that takes.
    pub(in crate::server) fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ended = self.over.recv();
    }
}

impl Audit {
    /// One whose entries go into this queue.
    fn on(entries: SyncSender<Entry>) -> Self {
        Self(Some(Arc::new(Shared {
            entries,
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            lost_total: AtomicU64::new(0),
            reopens: AtomicBool::new(false),
            caused: Chatter::default(),
        })))
    }

    /// A log in this place.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or the system has no more threads.
    pub fn open(place: AuditPlace) -> io::Result<(Self, AuditWriter)> {
        let out = Out::open(&place)?;
        let (entries, queue) = sync_channel(ENTRIES_MAX);
        let audit = Self::on(entries);
        let (tell_over, over) = sync_channel(1);
        let ends = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            audit: audit.clone(),
            queue,
            place,
            out,
            ends: Arc::clone(&ends),
            is_torn: false,
        };
        thread::Builder::new().name("audit".to_owned()).spawn(move || {
            writer.run();
            // Nobody may listen any more.
            let _ = tell_over.send(());
        })?;
        Ok((audit, AuditWriter { over, ends }))
    }
}

/// Where bytes go.
enum Out {
    File(File),
    StandardError,
}

impl Out {
    fn open(place: &AuditPlace) -> io::Result<Self> {
        let open = |file: &Path| {
            OpenOptions::new().append(true).create(true).mode(MODE).open(file).map(Self::File)
        };
        match place {
            AuditPlace::File(file) => open(file),
            AuditPlace::StandardError => Ok(Self::StandardError),
        }
    }

    /// Whether something is written already.
    fn is_begun(&self) -> bool {
        match self {
            Self::File(file) => file.metadata().is_ok_and(|it| it.len() > 0),
            Self::StandardError => true,
        }
    }

    /// Writes as much as goes. Says how much that was, and why not more.
    fn write(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        match self {
            Self::File(file) => write_counted(file, bytes),
            Self::StandardError => write_counted(&mut io::stderr().lock(), bytes),
        }
    }
}

fn write_counted(to: &mut dyn Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match to.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// What the thread has.
struct Writer {
    /// The log that it writes.
    audit: Audit,
    /// Entries that wait.
    queue: Receiver<Entry>,
    /// Where the log is.
    place: AuditPlace,
    /// Where bytes go.
    out: Out,
    /// Whether nothing more comes.
    ends: Arc<AtomicBool>,
    /// Whether the last line is only half written: then the next begins with the end of that.
    is_torn: bool,
}

/// How often it is looked whether nothing more comes.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Writer {
    fn run(mut self) {
        let mut is_failing = false;
        while self.pass_on(&mut is_failing) {}
        self.tell_rest();
    }

    /// Writes what comes next, and what has come behind it. Says whether more may come.
    fn pass_on(&mut self, is_failing: &mut bool) -> bool {
        let entry = match self.queue.recv_timeout(LOOK_EVERY) {
            Ok(entry) => entry,
            Err(RecvTimeoutError::Timeout) => return !self.ends.load(Ordering::Relaxed),
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        let mut bytes = Vec::new();
        let mut count = 1;
        let told_lost = self.put_lost(&mut bytes);
        put(&entry, &mut bytes);
        for entry in self.queue.try_iter().take(ENTRIES_MAX) {
            put(&entry, &mut bytes);
            count += 1;
        }
        if let Some(shared) = &self.audit.0 {
            let taken = usize::try_from(count).unwrap_or(usize::MAX);
            shared.waiting.fetch_sub(taken, Ordering::Relaxed);
        }
        let written = self.reopen().and_then(|()| self.write(&bytes));
        if let Err(why) = &written {
            self.lose(count);
            // Nobody has read how many were lost before. The sum has them already.
            if let Some(shared) = &self.audit.0 {
                shared.lost.fetch_add(told_lost, Ordering::Relaxed);
            }
            if !*is_failing {
                error!("the audit log cannot be written: {why}");
            }
        } else if *is_failing {
            info!("the audit log can be written again");
        }
        *is_failing = written.is_err();
        true
    }

    /// Says at the end what was left out of an interval that is not over, and what was lost.
    fn tell_rest(&mut self) {
        let Some(shared) = &self.audit.0 else { return };
        let mut bytes = Vec::new();
        for reason in shared.caused.take_rest() {
            let (result, reason) = (Some("counted"), Some(reason));
            put(&Entry { event: "left_out", result, reason, ..Entry::default() }, &mut bytes);
        }
        self.put_lost(&mut bytes);
        if !bytes.is_empty()
            && let Err(why) = self.write(&bytes)
        {
            error!("the audit log cannot be written: {why}");
        }
    }

    /// Says in its place how much is missing, and how much it said that is.
    fn put_lost(&self, bytes: &mut Vec<u8>) -> u64 {
        let Some(shared) = &self.audit.0 else { return 0 };
        let lost = shared.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let reason = Some(format!("{lost} entries did not fit, or could not be written"));
            put(&Entry { event: "lost", reason, ..Entry::default() }, bytes);
        }
        lost
    }

    /// Writes lines, behind the end of one that was only half written.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.out.write(b"\n").1?;
            self.is_torn = false;
        }
        let (len, written) = self.out.write(lines);
        self.is_torn = len > 0 && lines.get(len - 1) != Some(&b'\n');
        written
    }

    /// Opens the file anew, if that was asked for. If that cannot be done, it is asked for still: what is
    /// lost is counted, and does not go where nobody looks any more.
    fn reopen(&mut self) -> io::Result<()> {
        let Some(shared) = &self.audit.0 else { return Ok(()) };
        if shared.reopens.swap(false, Ordering::Relaxed) {
            match Out::open(&self.place) {
                Ok(out) => {
                    self.is_torn &= out.is_begun();
                    self.out = out;
                }
                Err(error) => {
                    shared.reopens.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn lose(&self, count: u64) {
        if let Some(shared) = &self.audit.0 {
            shared.lost.fetch_add(count, Ordering::Relaxed);
            shared.lost_total.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// An entry as a line.
#[derive(Serialize)]
struct Dated<'a> {
    /// When, in UTC.
    at: String,
    /// What.
    #[serde(flatten)]
    entry: &'a Entry,
}

fn put(entry: &Entry, bytes: &mut Vec<u8>) {
    let at = entry.at.unwrap_or_else(SystemTime::now);
    let at = humantime::format_rfc3339_millis(at).to_string();
    let before = bytes.len();
    match serde_json::to_writer(&mut *bytes, &Dated { at, entry }) {
        Ok(()) => bytes.push(b'\n'),
        // Texts and numbers can always be written; half a line never stays.
        Err(_) => bytes.truncate(before),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::server::chatter::Topic;

    fn denied(number: u64) -> Entry {
        let lock = Some("a\nb\"c\u{202e}".to_owned());
        Entry { event: "denied", token: Some(number), lock, ..Entry::default() }
    }

    fn lines(file: &Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn entries_are_lines_of_json_in_the_order_of_what_happened() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit");
        let (audit, writer) = Audit::open(AuditPlace::File(file.clone())).unwrap();
        for number in 0..100 {
            audit.tell(denied(number));
        }
        writer.end();
        let lines = lines(&file);
        assert_eq!(lines.len(), 100);
        for (number, line) in lines.iter().enumerate() {
            assert_eq!(line["token"], number);
            assert_eq!(line["lock"], "a\nb\"c\u{202e}");
            assert!(line["at"].as_str().unwrap().ends_with('Z'));
            assert!(line.get("principal").is_none(), "what is not there is left out");
        }
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_told_in_its_place() {
        let (entries, queue) = sync_channel(2);
        let audit = Audit::on(entries);
        // Nobody reads the queue, and nobody waits for that.
        for number in 0..10 {
            audit.tell(denied(number));
        }
        assert_eq!(audit.lost(), 8);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit");
        let place = AuditPlace::File(file.clone());
        let out = Out::open(&place).unwrap();
        let ends = Arc::new(AtomicBool::new(true));
        Writer { audit: audit.clone(), queue, place, out, ends, is_torn: false }.run();
        let lines = lines(&file);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0]["event"], "lost");
        assert!(lines[0]["reason"].as_str().unwrap().starts_with("8 entries"));
    }

    #[test]
    fn what_was_lost_is_told_whole_although_telling_it_failed() {
        let (entries, queue) = sync_channel(2);
        let audit = Audit::on(entries);
        for number in 0..10 {
            audit.tell(denied(number));
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit");
        File::create(&file).unwrap();
        // It refuses to be written to, as a full disk does.
        let out = Out::File(File::open(&file).unwrap());
        let ends = Arc::new(AtomicBool::new(true));
        let place = AuditPlace::File(file.clone());
        let mut failing = Writer { audit: audit.clone(), queue, place, out, ends, is_torn: false };
        failing.pass_on(&mut false);
        assert_eq!(audit.lost(), 10, "and no entry twice");
        let mut told = Vec::new();
        assert_eq!(failing.put_lost(&mut told), 10);
    }

    #[test]
    fn an_end_tells_what_was_left_out_of_an_interval_that_is_not_over() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit");
        let (audit, writer) = Audit::open(AuditPlace::File(file.clone())).unwrap();
        for _ in 0..600 {
            if audit.admits(Topic::AuditedDenial, None) {
                audit.tell(denied(1));
            }
        }
        writer.end();
        let last = lines(&file).pop().unwrap();
        assert_eq!(last["event"], "left_out");
        assert!(last["reason"].as_str().unwrap().starts_with("100 more denials"), "{last}");
    }

    /// A writer of a log in this place, and nobody who writes.
    fn writer(place: AuditPlace, out: Out) -> (Audit, Writer) {
        let (entries, queue) = sync_channel(9);
        let audit = Audit::on(entries);
        let ends = Arc::new(AtomicBool::new(true));
        (audit.clone(), Writer { audit, queue, place, out, ends, is_torn: false })
    }

    #[test]
    fn a_file_that_cannot_be_opened_anew_is_asked_for_again() {
        let directory = tempfile::tempdir().unwrap();
        let (file, moved) = (directory.path().join("logs/audit"), directory.path().join("moved"));
        fs::create_dir(directory.path().join("logs")).unwrap();
        let place = AuditPlace::File(file.clone());
        let (audit, mut writer) = writer(place.clone(), Out::open(&place).unwrap());
        fs::rename(&file, &moved).unwrap();
        fs::remove_dir(directory.path().join("logs")).unwrap();
        audit.reopen();
        writer.reopen().unwrap_err();
        fs::create_dir(directory.path().join("logs")).unwrap();
        audit.tell(denied(1));
        writer.run();
        assert_eq!(lines(&file).pop().unwrap()["token"], 1);
        assert_eq!(lines(&moved).len(), 0);
    }

    #[test]
    fn what_strangers_cause_leaves_half_of_the_room_to_what_matters_more() {
        let (entries, queue) = sync_channel(ENTRIES_MAX);
        let audit = Audit::on(entries);
        for number in 0..2 * ENTRIES_MAX as u64 {
            audit.tell_of_strangers(denied(number));
        }
        assert_eq!(queue.try_iter().take(1).count(), 1);
        for number in 0..ENTRIES_MAX as u64 / 2 {
            audit.tell(denied(number));
        }
        assert_eq!(audit.lost(), 3 * ENTRIES_MAX as u64 / 2, "and none of what matters more");
    }

    #[test]
    fn half_a_line_is_ended_before_the_next_begins() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit");
        let place = AuditPlace::File(file.clone());
        let (_, mut writer) = writer(place.clone(), Out::open(&place).unwrap());
        let mut half: &mut [u8] = &mut [0; 4];
        let (len, written) = write_counted(&mut half, b"12345\n");
        assert!(written.is_err() && len == 4, "a disk that is full");
        writer.write(b"1234").unwrap();
        writer.write(b"whole\n").unwrap();
        writer.write(b"next\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "1234\nwhole\nnext\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew_when_that_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let (file, moved) = (directory.path().join("audit"), directory.path().join("moved"));
        let (audit, writer) = Audit::open(AuditPlace::File(file.clone())).unwrap();
        fs::rename(&file, &moved).unwrap();
        audit.reopen();
        audit.tell(denied(1));
        writer.end();
        let last = lines(&file).pop().unwrap();
        assert_eq!(last["token"], 1);
    }
}
