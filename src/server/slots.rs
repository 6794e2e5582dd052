//! Memory of slabs that most of their things have left: after a crowd has gone, what it took goes too.

use slab::Slab;

/// Fewer places than this are never given back.
const PLACES_KEPT: usize = 1024;
/// A slab is mostly empty if less than one in so many of its places is used.
const MOSTLY_EMPTY: usize = 8;

/// Whether the memory of a slab is worth giving back, after something was removed. Asked for at few
/// lengths, so that a crowd that goes walks over the places a few times.
pub(super) fn is_deserted<T>(slab: &Slab<T>) -> bool {
    let (len, places) = (slab.len(), slab.capacity());
    places > PLACES_KEPT && len < places / MOSTLY_EMPTY && (len == 0 || len.is_power_of_two())
}

/// Gives back the places behind the last one that is taken, if the slab is deserted: things stay where they are.
pub(super) fn give_back<T>(slab: &mut Slab<T>) {
    if is_deserted(slab) {
        slab.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_that_has_gone_leaves_no_memory_and_moves_nobody_who_stays() {
        let mut slab: Slab<usize> = (0..20_000).map(|thing| (thing, thing)).collect();
        for place in (10..20_000).rev() {
            slab.remove(place);
            give_back(&mut slab);
        }
        assert!(slab.capacity() < PLACES_KEPT, "{}", slab.capacity());
        assert!(slab.iter().all(|(place, thing)| place == *thing));
        assert_eq!(slab.len(), 10);
    }

    #[test]
    fn nothing_is_given_back_while_an_eighth_is_there_or_little_could_be() {
        let slab: Slab<usize> = (0..PLACES_KEPT / 2).map(|thing| (thing, thing)).collect();
        assert!(!is_deserted(&slab));
        let mut slab = Slab::<usize>::with_capacity(8 * PLACES_KEPT);
        for thing in 0..PLACES_KEPT {
            slab.insert(thing);
        }
        assert!(!is_deserted(&slab));
    }
}
