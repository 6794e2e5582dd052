//! Columns of a table on a screen of any width: which are shown, and how wide each is.

use ratatui::text::Line;

/// Blanks between two columns.
pub(super) const GAP: u16 = 2;
/// As many cells a column of text has before others that may be left out are shown beside it.
const TEXT_WIDTH_GOOD: u16 = 24;
/// Fewer than this it never has.
const TEXT_WIDTH_MIN: u16 = 4;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// Its head.
    pub(super) title: &'static str,
    /// What is in it.
    pub(super) kind: Kind,
    /// The greatest is left out first where there is no room; 0: never.
    pub(super) spare: u8,
}

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text, which may be cut.
    Text,
    /// A number, which may not, on the right side.
    Number,
}

impl Column {
    /// A column of text that is always there.
    pub(super) const fn text(title: &'static str) -> Self {
        Self::optional(title, 0)
    }

    /// A column of text that may be left out.
    pub(super) const fn optional(title: &'static str, spare: u8) -> Self {
        Self { title, kind: Kind::Text, spare }
    }

    /// A column of numbers.
    pub(super) const fn number(title: &'static str, spare: u8) -> Self {
        Self { title, kind: Kind::Number, spare }
    }
}

/// Where a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which one.
    pub(super) index: usize,
    /// Its first cell.
    pub(super) x: u16,
    /// How many it has.
    pub(super) width: u16,
}

/// How many cells a text takes.
pub(super) fn width_of(text: &str) -> u16 {
    u16::try_from(Line::raw(text).width()).unwrap_or(u16::MAX)
}

/// `1,204`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Finds room for the columns, of which these are the widest cells, on so many cells.
pub(super) fn lay_out(columns: &[Column], widest: &[u16], room: u16) -> Vec<Place> {
    let natural = |index: usize| widest[index].max(width_of(columns[index].title));
    let mut shown: Vec<usize> = (0..columns.len())
        // An empty column that may be left out says nothing.
        .filter(|index| columns[*index].spare == 0 || widest[*index] > 0)
        .collect();
    let least = |index: usize| match columns[index].kind {
        Kind::Text => natural(index).min(TEXT_WIDTH_GOOD),
        Kind::Number => natural(index),
    };
    let gaps = |count: usize| u16::try_from(count.saturating_sub(1)).unwrap_or(0) * GAP;
    let needed = |shown: &[usize]| {
        let cells = shown.iter().map(|index| least(*index));
        cells.fold(gaps(shown.len()), u16::saturating_add)
    };
    while needed(&shown) > room {
        let spare = shown.iter().copied().filter(|index| columns[*index].spare > 0);
        let Some(first) = spare.max_by_key(|index| columns[*index].spare) else { break };
        shown.retain(|index| *index != first);
    }
    let mut widths: Vec<u16> = shown.iter().map(|index| least(*index)).collect();
    // Where even that is too much, the widest texts give way: half a number is a wrong one.
    let mut over = needed(&shown).saturating_sub(room);
    while over > 0 {
        let texts = widths.iter_mut().zip(&shown);
        let texts = texts.filter(|(width, index)| {
            columns[**index].kind == Kind::Text && **width > TEXT_WIDTH_MIN
        });
        let Some((widest, _)) = texts.max_by_key(|(width, _)| **width) else { break };
        *widest -= 1;
        over -= 1;
    }
    let mut left = room.saturating_sub(needed(&shown));
    let mut x = 0;
    let mut places = Vec::new();
    for (index, width) in shown.into_iter().zip(widths) {
        let more = natural(index).saturating_sub(least(index)).min(left);
        left -= more;
        let width = (width + more).min(room.saturating_sub(x));
        places.push(Place { index, x, width });
        x = x.saturating_add(width + GAP);
    }
    places
}
