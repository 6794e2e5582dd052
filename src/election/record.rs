//! The seat as text, in etcd: an operator can read it with `etcdctl get`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::{Arbiter, Gap, Kept, Mark, RunId, Seat, Tenure, Version};
use crate::types::Epoch;

/// The version of this text. Another one is understood by nobody here.
const FORMAT: u32 = 1;

/// Who wrote a seat, and where clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// Its name in the cluster.
    pub name: String,
    /// The address that it gives to clients.
    pub address: String,
    /// Where standbys follow it; empty: nowhere.
    pub peer: String,
}

/// What the key of the seat holds.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// How the rest is to be understood.
    format: u32,
    /// Which leadership this is.
    term: u64,
    /// The name of who wrote it: the leader, until it hands over.
    name: String,
    /// Where clients reach that one.
    address: String,
    /// Where standbys follow that one; empty: nowhere.
    #[serde(default)]
    peer: String,
    /// The run that leads.
    leader: String,
    /// Whether it has stopped in order.
    resigned: bool,
    /// Whether it was proved that etcd was set back.
    #[serde(default)]
    set_back: bool,
    /// Leaders begin with a later epoch than this.
    #[serde(default)]
    forgotten: u64,
    /// What was left in earlier terms is older than what was said: etcd was set back.
    #[serde(default)]
    since: u64,
    /// The id of the etcd in place of which this one decides, as an operator has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instead_of: Option<u64>,
    /// The run that is in sync with it.
    standby: Option<String>,
    /// How long others wait for it.
    lease_ms: u64,
    /// Which swap wrote it.
    mark: String,
}

/// A seat as text.
pub(super) fn encode(seat: &Seat, author: &Author) -> Vec<u8> {
    let record = Record {
        format: FORMAT,
        term: seat.term,
        name: author.name.clone(),
        address: author.address.clone(),
        peer: author.peer.clone(),
        leader: text(seat.leader.0),
        resigned: seat.tenure == Tenure::Resigned,
        set_back: seat.tenure == Tenure::SetBack,
        forgotten: seat.gap.epoch.number(),
        since: seat.gap.term,
        instead_of: seat.gap.instead_of.map(|it| it.0),
        standby: seat.standby.map(|run| text(run.0)),
        lease_ms: u64::try_from(seat.lease.as_millis()).unwrap_or(u64::MAX),
        mark: text(seat.mark),
    };
    serde_json::to_vec(&record).unwrap_or_default()
}

/// The seat that a text says; none if it is not one of ours.
pub(super) fn decode(bytes: &[u8]) -> Option<(Seat, Author)> {
    let record: Record = serde_json::from_slice(bytes).ok()?;
    if record.format != FORMAT {
        return None;
    }
    let standby = match record.standby {
        Some(text) => Some(RunId(mark(&text)?)),
        None => None,
    };
    let seat = Seat {
        term: record.term,
        leader: RunId(mark(&record.leader)?),
        tenure: match (record.resigned, record.set_back) {
            (_, true) => Tenure::SetBack,
            (true, false) => Tenure::Resigned,
            (false, false) => Tenure::Held,
        },
        gap: Gap {
            epoch: Epoch::new(record.forgotten),
            term: record.since,
            instead_of: record.instead_of.map(Arbiter),
        },
        standby,
        lease: Duration::from_millis(record.lease_ms),
        mark: mark(&record.mark)?,
    };
    Some((seat, Author { name: record.name, address: record.address, peer: record.peer }))
}

/// What is kept between two processes.
#[derive(Debug, Serialize, Deserialize)]
struct KeptRecord {
    /// How the rest is to be understood.
    format: u32,
    /// Where it was kept: the start of a machine, and a directory of it. A copy is elsewhere.
    place: String,
    /// The life of the table.
    run: String,
    /// The highest term that was heard of.
    term: u64,
    /// The highest version of the seat, when that was.
    version: u64,
    /// The id of the etcd that has it.
    #[serde(default)]
    arbiter: Option<u64>,
}

/// What is kept at a place, as text.
pub(crate) fn encode_kept(kept: &Kept, place: &str) -> Vec<u8> {
    let Kept { run, term, version, arbiter } = kept;
    let (run, term, version) = (text(run.0), *term, version.0);
    let (place, arbiter) = (place.to_owned(), arbiter.map(|it| it.0));
    let record = KeptRecord { format: FORMAT, place, run, term, version, arbiter };
    serde_json::to_vec(&record).unwrap_or_default()
}

/// What such a text says, for a process at a place; none if it is not one of ours. At another place than where
/// it was kept it is about the run `other`: who was kept there may still live there.
pub(crate) fn decode_kept(bytes: &[u8], place: Option<&str>, other: RunId) -> Option<Kept> {
    let record: KeptRecord = serde_json::from_slice(bytes).ok()?;
    let KeptRecord { format: FORMAT, place: kept, run, term, version, arbiter } = record else {
        return None;
    };
    let run = if place == Some(&kept) { RunId(mark(&run)?) } else { other };
    Some(Kept { run, term, version: Version(version), arbiter: arbiter.map(Arbiter) })
}

pub(super) fn text(mark: Mark) -> String {
    format!("{:032x}-{}", mark.process, mark.attempt)
}

fn mark(text: &str) -> Option<Mark> {
    let (process, attempt) = text.split_once('-')?;
    let process = u128::from_str_radix(process, 16).ok()?;
    Some(Mark { process, attempt: attempt.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat() -> Seat {
        let mark = |attempt| Mark { process: 0xabc, attempt };
        Seat {
            term: 7,
            leader: RunId(mark(0)),
            tenure: Tenure::Held,
            standby: Some(RunId(Mark { process: u128::MAX, attempt: u64::MAX })),
            lease: Duration::from_secs(2),
            gap: Gap::default(),
            mark: mark(3),
        }
    }

    fn author(address: &str) -> Author {
        let peer = "10.0.0.7:5630".to_owned();
        Author { name: "a".to_owned(), address: address.to_owned(), peer }
    }

    #[test]
    fn a_seat_is_read_as_it_was_written_and_by_people() {
        let author = author("10.0.0.7:5625");
        let alone = Seat { standby: None, tenure: Tenure::Resigned, ..seat() };
        let instead_of = Some(Arbiter(u64::MAX));
        let gap = Gap { epoch: Epoch::new(9), term: 7, instead_of };
        let set_back = Seat { tenure: Tenure::SetBack, gap, ..seat() };
        for seat in [seat(), alone, set_back] {
            assert_eq!(decode(&encode(&seat, &author)), Some((seat, author.clone())));
        }
        let text = String::from_utf8(encode(&seat(), &author)).unwrap();
        assert!(text.starts_with(r#"{"format":1,"term":7,"name":"a","address":"10.0.0.7:5625""#));
    }

    #[test]
    fn what_is_kept_is_read_as_it_was_written_and_nothing_else_is() {
        let arbiter = Some(Arbiter(u64::MAX));
        let kept = Kept { run: seat().leader, term: 7, version: Version(99), arbiter };
        let bytes = encode_kept(&kept, "here");
        let fresh = RunId(Mark { process: 5, attempt: 0 });
        assert_eq!(decode_kept(&bytes, Some("here"), fresh), Some(kept));
        for elsewhere in [Some("there"), None] {
            let kept = Kept { run: fresh, ..kept };
            assert_eq!(decode_kept(&bytes, elsewhere, fresh), Some(kept), "it is a copy");
        }
        assert_eq!(decode_kept(&bytes[1..], Some("here"), fresh), None);
        let other = String::from_utf8(bytes).unwrap().replace(r#""format":1"#, r#""format":2"#);
        assert_eq!(decode_kept(other.as_bytes(), Some("here"), fresh), None);
    }

    #[test]
    fn what_nobody_here_wrote_is_no_seat() {
        let author = author("b:1");
        let text = String::from_utf8(encode(&seat(), &author)).unwrap();
        assert_eq!(decode(text.replace(r#""format":1"#, r#""format":2"#).as_bytes()), None);
        assert_eq!(decode(text.replace("abc-0", "abc").as_bytes()), None);
        for other in ["", "{}", "null", "5", "\u{0}"] {
            assert_eq!(decode(other.as_bytes()), None);
        }
    }
}
