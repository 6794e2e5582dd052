//! Breaking a grant: the lock's name has to be typed, and a reason given. Whoever has read the name
//! once more has read which lock it is.

use coordinator::types::NOTE_LEN_MAX;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rows::Grant;

/// The question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialog {
    /// What is to be broken, as it was when the question was asked: its token stays.
    pub(super) grant: Grant,
    /// Other locks of it, as far as they are known: it is broken as a whole.
    pub(super) others: Vec<String>,
    /// What was typed of the lock's name.
    pub(super) name: String,
    /// What was typed of the reason.
    pub(super) reason: String,
    /// Where keys go.
    pub(super) field: Field,
}

/// A field of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// The lock's name.
    Name,
    /// The reason.
    Reason,
}

/// What a key has done to the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is still asked.
    Open,
    /// It is to be left.
    No,
    /// It is to be done.
    Yes,
}

impl Dialog {
    /// Asks.
    pub(super) fn new(grant: Grant, others: Vec<String>) -> Self {
        Self { grant, others, name: String::new(), reason: String::new(), field: Field::Name }
    }

    /// What keeps it from being done; none: nothing.
    pub(super) fn missing(&self) -> Option<&'static str> {
        if self.name != self.grant.lock {
            Some(if self.name.is_empty() { "type the lock's name" } else { "that is not its name" })
        } else if self.reason.trim().is_empty() {
            Some("give a reason, for the audit log")
        } else {
            None
        }
    }

    /// Takes a key.
    pub(super) fn press(&mut self, key: KeyEvent) -> Answer {
        let (is_whole, is_named) = (self.missing().is_none(), self.name == self.grant.lock);
        let text = match self.field {
            Field::Name => &mut self.name,
            Field::Reason => &mut self.reason,
        };
        match key.code {
            KeyCode::Esc => return Answer::No,
            KeyCode::Tab | KeyCode::BackTab | KeyCode::Up | KeyCode::Down => {
                self.field = match self.field {
                    Field::Name => Field::Reason,
                    Field::Reason => Field::Name,
                };
            }
            KeyCode::Enter if is_whole => return Answer::Yes,
            KeyCode::Enter if is_named => self.field = Field::Reason,
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Char(letter)
                if !key.modifiers.contains(KeyModifiers::CONTROL)
                    && !letter.is_control()
                    && text.len() + letter.len_utf8() <= NOTE_LEN_MAX =>
            {
                text.push(letter);
            }
            _ => {}
        }
        Answer::Open
    }
}
