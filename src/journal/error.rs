//! The errors of a journal, in sentences for the log.

use std::io;

use super::frame::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};
use super::header::{FORMAT, SETTINGS_BYTES_MAX};

/// Why a journal that was found is not used. Then the run begins as if there were none: with a
/// grace period, in which holders reclaim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Void {
    /// Records that were not synced are lost, and nobody knows which.
    #[error("the machine was rebooted, and this journal survives only crashes of the process")]
    Restarted,
    /// Whether the machine was restarted cannot be told.
    #[error(
        "this operating system does not tell whether it was rebooted: only a synced journal can be \
        used"
    )]
    BootUnknown,
    /// It came here with a copied or moved directory.
    #[error("the journal belongs to another machine")]
    OtherMachine,
    /// Another version wrote it.
    #[error("{file} was written by {} version: it has format {found}, this version knows {FORMAT}",
        if *found > FORMAT { "a later" } else { "an earlier" })]
    Format {
        /// The file.
        file: String,
        /// Its format.
        found: u32,
    },
    /// The same events have other consequences under other rules.
    #[error("segment {segment} follows version {found} of the rules, this version has {known}")]
    Rules {
        /// The segment.
        segment: u64,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A file is not there.
    #[error("segment {segment} is missing")]
    SegmentMissing {
        /// The segment.
        segment: u64,
    },
    /// It is not known who wrote this file, and when.
    #[error("the header of segment {segment} does not verify")]
    Header {
        /// The segment.
        segment: u64,
    },
    /// The name of the file and its content do not fit.
    #[error("segment {segment} has the header of segment {found}")]
    Misnamed {
        /// By its name.
        segment: u64,
        /// By its header.
        found: u64,
    },
    /// Records may have been added to the other one since.
    #[error("segment {segment} is a copy of the file that was written")]
    Copied {
        /// The segment.
        segment: u64,
    },
    /// Somebody kept a name for it, to bring it back.
    #[error("segment {segment} has {links} names: hard links to it were made")]
    Linked {
        /// The segment.
        segment: u64,
        /// How many.
        links: u64,
    },
    /// Its content may be anybody's.
    #[error("others can write {file}")]
    Exposed {
        /// The file.
        file: String,
    },
    /// A record, or what stands between records, is not as it was written.
    #[error("record {} does not verify (segment {segment})", grouped(*number))]
    Record {
        /// Where it stands.
        segment: u64,
        /// Its number.
        number: u64,
    },
    /// The same, and a later mark says that it was there.
    #[error(
        "record {} does not verify, though it was synced (segment {segment})",
        grouped(*number)
    )]
    Synced {
        /// Where it stands.
        segment: u64,
        /// Its number.
        number: u64,
    },
    /// Two segments that stand beside each other do not belong together.
    #[error("segment {segment} is not what segment {predecessor} names as its successor")]
    Unlinked {
        /// The segment.
        segment: u64,
        /// The one before.
        predecessor: u64,
    },
    /// The first segment goes on from a checkpoint that is not there.
    #[error("the checkpoint of segment {segment} is missing")]
    CheckpointMissing {
        /// The segment.
        segment: u64,
    },
    /// The first segment goes on from a checkpoint that is not as it was written.
    #[error("the checkpoint of segment {segment} does not verify")]
    CheckpointDamaged {
        /// The segment.
        segment: u64,
    },
    /// It is older than the state beside it.
    #[error("the journal ends with epoch {found}, the state with {expected}: it is an old copy")]
    OldJournal {
        /// That of the journal.
        found: u64,
        /// That of the state.
        expected: u64,
    },
    /// The state beside it is older than the journal.
    #[error(
        "the state ends with epoch {expected}, and had {found} by the journal: it is an old copy"
    )]
    OldState {
        /// The last that the journal knows to have been kept.
        found: u64,
        /// That of the state.
        expected: u64,
    },
    /// The disk fails.
    #[error("{file} cannot be read: {why}")]
    Unreadable {
        /// The file.
        file: String,
        /// The system's words.
        why: String,
    },
    /// The content verifies, but the machine that follows it does not understand it.
    #[error("{what} cannot be replayed: {why}")]
    NotUnderstood {
        /// A record or the checkpoint.
        what: String,
        /// Why not.
        why: String,
    },
}

impl Void {
    pub(super) fn unreadable(file: &str, error: &io::Error) -> Self {
        Self::Unreadable { file: file.to_owned(), why: error.to_string() }
    }
}

/// Things found beside a whole journal, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The end was cut short, of which nobody was told anything.
    Dropped {
        /// The first record that is not there.
        number: u64,
        /// How much stood there.
        bytes: u64,
    },
    /// A checkpoint could not be used; the segments before it were still there.
    CheckpointUnused {
        /// The segment that it stands before.
        segment: u64,
    },
    /// A segment was made and never used.
    Unused {
        /// The segment.
        segment: u64,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dropped { number, bytes } => {
                let number = grouped(*number);
                write!(
                    f,
                    "torn write: {bytes} bytes from record {number} on were dropped; no client had \
                    seen their effect"
                )
            }
            Self::CheckpointUnused { segment } => {
                write!(
                    f,
                    "the checkpoint of segment {segment} does not verify: the segments before \
                     it were read instead"
                )
            }
            Self::Unused { segment } => {
                write!(f, "segment {segment} was made and never used")
            }
        }
    }
}

/// Why the journal cannot be written any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A file could not be made, written, synced, renamed.
    #[error("{file} cannot be {doing}: {why}")]
    File {
        /// The attempt.
        doing: &'static str,
        /// With what.
        file: Box<str>,
        /// The system's words.
        why: Box<str>,
    },
    /// Our own mistake.
    #[error("a record has {bytes} bytes, more than {RECORD_BYTES_MAX}")]
    RecordTooLong {
        /// How many.
        bytes: usize,
    },
    /// The operator's mistake, or our own.
    #[error("the settings have {bytes} bytes, more than {SETTINGS_BYTES_MAX}")]
    SettingsTooLong {
        /// How many.
        bytes: usize,
    },
    /// The disk is slower than what is to be written.
    #[error("more than {BATCH_BYTES_MAX} bytes wait to be written")]
    Behind,
    /// Nobody made a checkpoint.
    #[error("the journal has {bytes} bytes, and no checkpoint was made in time")]
    TooLong {
        /// How many.
        bytes: u64,
    },
    /// Our own mistake: a batch is missing, or came twice.
    #[error("record {found} was to be written where record {expected} is due")]
    Gap {
        /// The number that came.
        found: u64,
        /// The number that was to come.
        expected: u64,
    },
    /// Somebody removed or replaced the file: what is written is lost.
    #[error("{file} was removed or replaced")]
    Gone {
        /// The file.
        file: Box<str>,
    },
    /// Somebody put a file there that has the greatest number.
    #[error("no number is left for another segment: remove the segment with the highest number")]
    NoNumber,
    /// There is none yet, or none any more.
    #[error("the journal was never started")]
    NotBegun,
    /// Whoever was to write is gone, and did not say how far it came.
    #[error("the thread that wrote it has ended")]
    WriterGone,
}

impl Failure {
    pub(super) fn file<'a>(
        doing: &'static str,
        file: &'a str,
    ) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |error| Self::File { doing, file: file.into(), why: error.to_string().into() }
    }
}

/// The journal is not written any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It was made void: no later start takes it for what it was. The service goes on without it.
    #[error("journal abandoned: {0}")]
    Void(Failure),
    /// It could not even be made void. A later start might take it for complete, so nothing may be
    /// granted until it is.
    #[error(
        "the journal can be neither written ({why}) nor invalidated ({void}): nothing may be \
        granted"
    )]
    Stuck {
        /// Why it cannot be written.
        why: Failure,
        /// Why it cannot be made void.
        void: Failure,
    },
}

/// A number as people read it: 48,211.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
