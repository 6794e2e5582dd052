//! Bytes that are almost right.
//!
//! Arbitrary bytes end at the first length field. So mutations mostly change the inside of frames
//! and correct the length field, or change the order of frames (structure-aware fuzzing). Only now
//! and then they change the bytes as such.

use super::{Corpus, Random};

/// Most mutations of one input: few keep it likely that what follows is understood.
const MUTATIONS_MAX: usize = 6;
/// Longest input. Several of the longest frames fit.
const INPUT_BYTES_MAX: usize = 256 * 1024;
/// Longest piece that is put in, taken out or repeated.
const PIECE_BYTES_MAX: usize = 64;
/// The length field of a frame.
const LENGTH_BYTES: usize = 4;

/// Numbers at which something changes: limits, ends of ranges, and one more or less.
const NUMBERS: [u64; 20] = [
    0,
    1,
    2,
    3,
    63,
    64,
    65,
    127,
    255,
    256,
    1_023,
    1_025,
    2_000,
    3_600_001,
    (64 << 10) + 1,
    u32::MAX as u64,
    1 << 45,
    1 << 53,
    i64::MAX as u64,
    u64::MAX,
];

/// An entry of the corpus, as it never was.
pub(crate) fn mutated(corpus: &Corpus, random: &mut Random) -> Vec<u8> {
    let mut frames = split(random.pick::<Vec<u8>>(corpus.entries()));
    for _ in 0..random.below(MUTATIONS_MAX + 1) {
        mutate(&mut frames, corpus, random);
    }
    let mut bytes = frames.concat();
    if random.once_in(4) {
        mutate_bytes(&mut bytes, random);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

/// The frames of `bytes`, each with its length field; what is none at the end is the last.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some(field) = bytes.first_chunk() {
        let end = LENGTH_BYTES.saturating_add(u32::from_le_bytes(*field) as usize);
        let Some(frame) = bytes.get(..end) else { break };
        frames.push(frame.to_vec());
        bytes = &bytes[end..];
    }
    if !bytes.is_empty() {
        frames.push(bytes.to_vec());
    }
    frames
}

fn mutate(frames: &mut Vec<Vec<u8>>, corpus: &Corpus, random: &mut Random) {
    let at = random.below(frames.len());
    match random.below(8) {
        // Another conversation goes on from here, or comes in between.
        0 => {
            let mut other = split(random.pick::<Vec<u8>>(corpus.entries()));
            let from = random.below(other.len());
            let other = other.split_off(from);
            frames.splice(at..at, other);
        }
        1 if !frames.is_empty() => {
            frames.remove(at);
        }
        // The same again, once or often enough to fill a batch.
        2 if !frames.is_empty() => {
            let times = if random.once_in(20) { 600 } else { 1 + random.below(3) };
            let again = vec![frames[at].clone(); times];
            frames.splice(at..at, again);
        }
        3 if !frames.is_empty() => {
            let with = random.below(frames.len());
            frames.swap(at, with);
        }
        _ if !frames.is_empty() => mutate_frame(&mut frames[at], random),
        _ => {}
    }
}

/// Changes what is in a frame; mostly its length is right afterwards.
fn mutate_frame(frame: &mut Vec<u8>, random: &mut Random) {
    if frame.len() <= LENGTH_BYTES {
        return mutate_bytes(frame, random);
    }
    let mut payload = frame.split_off(LENGTH_BYTES);
    if random.once_in(3) {
        mutate_bytes(&mut payload, random);
    } else {
        // All numbers are fixed in width: most likely this hits the whole of one.
        let number = random.pick(&NUMBERS).to_le_bytes();
        let width = *random.pick(&[1, 2, 4, 8]);
        let at = random.below(payload.len());
        for (old, new) in payload[at..].iter_mut().zip(&number[..width]) {
            *old = *new;
        }
    }
    if !random.once_in(20) {
        let len = u32::try_from(payload.len()).unwrap();
        frame.copy_from_slice(&len.to_le_bytes());
    }
    frame.append(&mut payload);
}

/// Changes bytes whatever they mean.
fn mutate_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(6) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = random.next().to_le_bytes()[0],
        2 => bytes.truncate(at),
        3 => {
            let end = (at + random.below(PIECE_BYTES_MAX)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            let piece = random.piece(bytes, PIECE_BYTES_MAX).to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let noise = (0..random.below(PIECE_BYTES_MAX)).map(|_| random.next().to_le_bytes()[0]);
            let noise: Vec<u8> = noise.collect();
            bytes.splice(at..at, noise);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_split_and_what_is_none_is_kept() {
        let bytes = [2, 0, 0, 0, 7, 8, 0, 0, 0, 0, 9, 0, 0];
        let frames = split(&bytes);
        assert_eq!(frames, [&[2, 0, 0, 0, 7, 8][..], &[0; 4], &[9, 0, 0]]);
        assert_eq!(frames.concat(), bytes);
    }

    #[test]
    fn the_same_seed_makes_the_same_bytes() {
        let corpus = Corpus::load(&["client"]);
        let made = |seed| mutated(&corpus, &mut Random::new(seed));
        let first: Vec<_> = (0..100).map(made).collect();
        let second: Vec<_> = (0..100).map(made).collect();
        assert_eq!(first, second);
        assert!(first.iter().any(|bytes| *bytes != first[0]));
    }
}
