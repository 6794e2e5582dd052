//! The screen as cells: three lines of the coordinator, a table, a line of keys.

use std::env;
use std::time::{Duration, Instant};

use coordinator::wire::ServerStatus;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::columns::{Kind, Place, grouped, lay_out, width_of};
use super::dialog::{Dialog, Field};
use super::look::{LIST_LEN_MAX, List, Wanted};
use super::model::{Mode, Top, View};
use super::rows::{Row, columns};
use crate::cli::show::waits::Lines;
use crate::cli::text::visible;
use crate::cli::text::words;

/// An answer older than this is no picture of now.
const FRESH: Duration = Duration::from_secs(3);
/// Where the table begins.
const TABLE_Y: u16 = 3;
const VIEWS: [(View, &str); 4] = [
    (View::Waits, "1 waits"),
    (View::Locks, "2 locks"),
    (View::Sessions, "3 sessions"),
    (View::Events, "4 events"),
];
/// What is before the key that breaks, that key, and what is behind it.
const KEYS: [&str; 3] =
    ["? help  q quit  / filter  s sort  ", "b break", "  p pause  Enter look into"];
const HELP: [&str; 15] = [
    "1 2 3 4, Tab   waits, locks, sessions, events",
    "up, down       select; also k, j, PgUp, PgDn, Home, End",
    "Enter          look into the selected lock: all holders and waiters",
    "Esc            back; or remove the filter",
    "/              show only rows that contain a text",
    "s              sort: longest, most waiting, name",
    "b              break the selected grant, by its lock's name and a reason;",
    "               struck out where you may not",
    "p, r           pause; look now",
    "Ctrl-Z         stop; fg goes on",
    "q, Ctrl-C      quit",
    "",
    "Ages are those of the last answer, and the corner says how old that is.",
    "STALE: no answer came; what is shown may be over.",
    "Any key leaves this.",
];
/// Cells of the question, its frame included.
const DIALOG_WIDTH_MAX: u16 = 72;
const DIALOG_HEIGHT: u16 = 10;

/// What can be drawn with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ink {
    /// Whether colours are wanted.
    colour: bool,
    /// Whether the locale has more than ASCII.
    lines: Lines,
}

impl Ink {
    /// Neither colours nor other letters than the text's own.
    pub(super) fn plain() -> Self {
        Self { colour: false, lines: Lines::Ascii }
    }

    /// As the user's variables say.
    pub(super) fn of_the_environment() -> Self {
        let colour = env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
        Self { colour, lines: Lines::of_the_locale() }
    }

    #[cfg(test)]
    pub(super) fn rich() -> Self {
        Self { colour: true, lines: Lines::Unicode }
    }

    fn in_colour(self, colour: Color, otherwise: Modifier) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new().add_modifier(otherwise) }
    }

    fn alarm(self) -> Style {
        self.in_colour(Color::Red, Modifier::REVERSED).add_modifier(Modifier::BOLD)
    }

    fn well(self) -> Style {
        self.in_colour(Color::Green, Modifier::empty())
    }

    /// Of what cannot be done.
    fn unable(self) -> Style {
        self.in_colour(Color::DarkGray, Modifier::empty()).add_modifier(Modifier::CROSSED_OUT)
    }

    fn head(self) -> Style {
        self.in_colour(Color::Cyan, Modifier::empty()).add_modifier(Modifier::BOLD)
    }
}

const QUIET: Style = Style::new().add_modifier(Modifier::DIM);
const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws all of it.
pub(super) fn draw(top: &Top, now: Instant, ink: Ink, area: Rect, buffer: &mut Buffer) {
    if area.width == 0 || area.height == 0 {
        return;
    }
    let pen = &mut Pen { buffer, area };
    first_line(top, now, ink, pen);
    second_line(top, ink, pen);
    third_line(top, ink, pen);
    table(top, ink, pen);
    last_line(top, ink, pen);
    match &top.mode {
        Mode::Help => help(ink, pen),
        Mode::Breaking(dialog) => question(dialog, ink, pen),
        Mode::Browsing | Mode::Filtering => {}
    }
}

/// The text of a buffer, each line with its end and without what is blank before it.
pub(super) fn text_of(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..buffer.area.height {
        let (mut line, mut x) = (String::new(), 0);
        while x < buffer.area.width {
            let symbol = buffer.cell((x, y)).map_or(" ", |cell| cell.symbol());
            line.push_str(symbol);
            // Behind a wide one is a cell that is not seen.
            x += width_of(symbol).max(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Writes on the buffer, and nowhere beside it.
struct Pen<'a> {
    /// Where it writes.
    buffer: &'a mut Buffer,
    /// As much of it as it may use.
    area: Rect,
}

impl Pen<'_> {
    /// Writes a text on a line, as far as there is room; the cell behind it.
    fn text(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16 {
        self.within(x, y, self.area.width.saturating_sub(x), text, style)
    }

    /// The same on so many cells at most.
    fn within(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
        let room = self.area.width.saturating_sub(x).min(width);
        if y >= self.area.height || room == 0 {
            return x;
        }
        let (at_x, at_y) = (self.area.x + x, self.area.y + y);
        if width_of(text) <= room {
            let (end, _) = self.buffer.set_stringn(at_x, at_y, text, usize::from(room), style);
            return end - self.area.x;
        }
        // What is cut says so.
        let (end, _) = self.buffer.set_stringn(at_x, at_y, text, usize::from(room - 1), style);
        let (end, _) = self.buffer.set_stringn(end, at_y, "~", 1, style);
        end - self.area.x
    }

    /// At the right side, if there is room behind `after`.
    fn right(&mut self, after: u16, y: u16, text: &str, style: Style) {
        let width = width_of(text);
        if after + 1 + width <= self.area.width {
            self.text(self.area.width - width, y, text, style);
        }
    }

    fn style(&mut self, x: u16, y: u16, width: u16, height: u16, style: Style) {
        let area = Rect::new(self.area.x + x, self.area.y + y, width, height);
        self.buffer.set_style(area.intersection(self.area), style);
    }
}

/// What is shown, and what can be done.
fn last_line(top: &Top, ink: Ink, pen: &mut Pen<'_>) {
    let y = pen.area.height - 1;
    if top.mode == Mode::Filtering {
        pen.text(0, y, &format!("/{}_", visible::escaped(&top.filter)), Style::new());
        return;
    }
    let mut x = 0;
    if !top.filter.is_empty() {
        x = pen.text(x, y, &format!("filter {}  ", visible::quoted(&top.filter)), Style::new());
    }
    if let Some(name) = &top.inside {
        x = pen.text(x, y, &format!("{}  Esc back", visible::quoted(name)), Style::new());
    } else {
        for (view, word) in VIEWS {
            let is_shown = view == top.view;
            let text = if is_shown { format!("[{word}] ") } else { format!(" {word}  ") };
            x = pen.text(x, y, &text, if is_shown { Style::new() } else { QUIET });
        }
        if top.view != View::Events {
            x = pen.text(x, y, &format!(" by {}", top.sort.word()), QUIET);
        }
    }
    let [before, breaks, behind] = KEYS;
    x = pen.text(x, y, &format!("  {before}"), QUIET);
    let style = if top.bar().is_some() { ink.unable() } else { QUIET };
    x = pen.text(x, y, breaks, style);
    pen.text(x, y, behind, QUIET);
}

/// Which coordinator, and how fresh this is.
fn first_line(top: &Top, now: Instant, ink: Ink, pen: &mut Pen<'_>) {
    let (text, style) = freshness(top, now, ink);
    // First of all: whoever reads a number has to know whether it still holds.
    let width = width_of(&text);
    let room = pen.area.width.saturating_sub(width + 1);
    let server = visible::escaped(&top.server).into_owned();
    let line = match &top.sight {
        None => format!("coordinator  {server}"),
        Some(sight) => {
            let ServerStatus { version, epoch, uptime_ms, .. } = &sight.server;
            let (version, up) = (visible::escaped(version), words::millis(*uptime_ms));
            format!("coordinator {version}  {server}  epoch {epoch}  up {up}")
        }
    };
    pen.within(0, 0, room, &line, Style::new().add_modifier(Modifier::BOLD));
    pen.right(0, 0, &text, style);
}

fn freshness(top: &Top, now: Instant, ink: Ink) -> (String, Style) {
    match (top.age(now), &top.trouble) {
        (None, None) => ("connecting".to_owned(), QUIET),
        (None, Some(_)) => ("nothing seen yet".to_owned(), ink.alarm()),
        (Some(age), None) if top.is_paused() => {
            (format!("paused for {}", words::length(age)), ink.alarm())
        }
        (Some(age), None) if age < FRESH => ("live".to_owned(), ink.well()),
        (Some(age), _) => (format!("STALE for {}", words::length(age)), ink.alarm()),
    }
}

/// How much of everything there is.
fn second_line(top: &Top, ink: Ink, pen: &mut Pen<'_>) {
    let Some(sight) = &top.sight else { return };
    let ServerStatus { sessions, locks, held, waiting, .. } = &sight.server;
    let style = if *waiting > 0 { ink.head() } else { Style::new() };
    let mut x = pen.text(0, 1, &format!("waiting {}", grouped(*waiting)), style);
    for (word, number) in [("holding", held), ("locks", locks), ("sessions", sessions)] {
        x = pen.text(x, 1, &format!("  {word} {}", grouped(*number)), Style::new());
    }
    if let Some(rate) = top.rates.back() {
        let text = format!("grants/s {} {}", grouped(*rate), strip(top, ink));
        pen.right(x, 1, text.trim_end(), Style::new());
    }
}

/// The rates of grants side by side, the latest last.
fn strip(top: &Top, ink: Ink) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = top.rates.iter().max().copied().unwrap_or(0);
    if ink.lines == Lines::Ascii || most == 0 {
        return String::new();
    }
    let step = |rate: &u64| usize::try_from(rate.saturating_mul(7) / most).unwrap_or(7);
    top.rates.iter().map(|rate| STEPS[step(rate).min(7)]).collect()
}

/// What somebody has to know now; behind it, for how long grants were waited for.
fn third_line(top: &Top, ink: Ink, pen: &mut Pen<'_>) {
    let x = match news(top, ink) {
        Some((news, style)) => pen.text(0, 2, &visible::escaped(&news), style),
        None => 0,
    };
    if let Some(waited) = top.waited.words(top.span, ink.lines) {
        pen.right(x, 2, &waited, Style::new());
    }
}

/// What was done, or what is wrong.
fn news(top: &Top, ink: Ink) -> Option<(String, Style)> {
    if let Some(said) = &top.said {
        return Some((said.clone(), Style::new().add_modifier(Modifier::BOLD)));
    }
    if let Some(why) = top.deaf.as_ref().filter(|_| top.view == View::Events) {
        return Some((format!("what happens is not heard: {why}"), ink.alarm()));
    }
    if let Some(trouble) = &top.trouble {
        return Some((trouble.clone(), ink.alarm()));
    }
    let server = top.sight.as_ref().map(|sight| &sight.server)?;
    let alarm = if server.draining {
        "it stops: nothing new is granted".to_owned()
    } else if server.unsaved_ms > 0 {
        let since = words::millis(server.unsaved_ms);
        format!("the state cannot be saved for {since}: granting will stop")
    } else if server.grace_ms > 0 {
        let left = words::millis(server.grace_ms);
        format!("grace period, {left} left: only former holders are granted")
    } else {
        return None;
    };
    Some((alarm, ink.alarm()))
}

fn table(top: &Top, ink: Ink, pen: &mut Pen<'_>) {
    let height = pen.area.height.saturating_sub(TABLE_Y + 2);
    let Some(list) = top.list() else {
        if top.sight.is_some() {
            pen.text(2, TABLE_Y + 1, "looking...", QUIET);
        }
        return;
    };
    let rows = top.rows();
    if rows.is_empty() {
        pen.text(2, TABLE_Y + 1, &nothing(top, list), Style::new());
        return;
    }
    let place = top.place(&rows);
    // The selected row stays in sight, with what is before it.
    let first = (place + 1).saturating_sub(usize::from(height).max(1));
    let shown = &rows[first..rows.len().min(first + usize::from(height))];
    let columns = columns(list);
    let widest = |index: usize| shown.iter().map(|row| width_of(&row.cells[index])).max();
    let widest: Vec<u16> = (0..columns.len()).map(|index| widest(index).unwrap_or(0)).collect();
    let places = lay_out(columns, &widest, pen.area.width.saturating_sub(1));
    let heads: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    line(pen, TABLE_Y, list, &places, &heads, ink.head());
    for (y, row) in (TABLE_Y + 1..).zip(shown) {
        line(pen, y, list, &places, &row.cells, Style::new());
    }
    let y = TABLE_Y + 1 + u16::try_from(place - first).unwrap_or(0);
    if y + 1 < pen.area.height {
        pen.text(0, y, ">", Style::new());
        pen.style(0, y, pen.area.width, 1, SELECTED);
    }
    more(pen, &rows, first, shown.len());
}

/// A line of the table, behind the cell of the mark.
fn line(pen: &mut Pen<'_>, y: u16, list: &List, places: &[Place], cells: &[String], style: Style) {
    for place in places {
        let cell = &cells[place.index];
        let before = match columns(list)[place.index].kind {
            Kind::Text => 0,
            Kind::Number => place.width.saturating_sub(width_of(cell)),
        };
        pen.within(1 + place.x + before, y, place.width - before, cell, style);
    }
}

/// How many rows are not shown, at the right side of the table's head.
fn more(pen: &mut Pen<'_>, rows: &[Row], first: usize, shown: usize) {
    if shown < rows.len() {
        let (from, to, all) = (first + 1, first + shown, rows.len());
        let text = format!(" {from}-{to} of {} ", grouped(all as u64));
        let x = pen.area.width.saturating_sub(width_of(&text));
        pen.text(x, pen.area.height.saturating_sub(2).max(TABLE_Y), &text, SELECTED);
    }
}

/// What is said in place of rows.
fn nothing(top: &Top, list: &List) -> String {
    match list {
        List::TooMany(wanted) => {
            let most = grouped(LIST_LEN_MAX as u64);
            let (what, flag) = match wanted {
                Wanted::Waits => ("locks are waited for", " --waits"),
                Wanted::Locks | Wanted::Lock(_) => ("locks are in use", ""),
                Wanted::Sessions | Wanted::Events => ("sessions are open", " --sessions"),
            };
            format!(
                "more than {most} {what}: they are not listed here; `coordinator status{flag}` does"
            )
        }
        _ if !top.filter.is_empty() => "no row contains the filter: Esc removes it".to_owned(),
        List::Waits(_) => "nobody waits: 2 shows the locks that are held".to_owned(),
        List::Locks(_) => "no lock is in use".to_owned(),
        List::Sessions(_) => "no session is open, or none that you may see".to_owned(),
        List::Events if top.deaf.is_some() => "what happens is not heard".to_owned(),
        List::Events => "nothing has happened since: events come as they happen".to_owned(),
        List::Lock(name, _) => format!("{} is free", visible::quoted(name)),
    }
}

/// Clears a box in the middle and draws its frame; its corner and its inner width.
fn frame(pen: &mut Pen<'_>, ink: Ink, width: u16, height: u16) -> (u16, u16, u16) {
    let (width, height) = (width.min(pen.area.width), height.min(pen.area.height));
    let (x, y) = ((pen.area.width - width) / 2, (pen.area.height - height) / 2);
    let (corner, across, down) = match ink.lines {
        Lines::Unicode => (["┌", "┐", "└", "┘"], "─", "│"),
        Lines::Ascii => (["+"; 4], "-", "|"),
    };
    let inner = usize::from(width.saturating_sub(2));
    for row in 0..height {
        let (left, between, right) = match row {
            0 => (corner[0], across, corner[1]),
            row if row + 1 == height => (corner[2], across, corner[3]),
            _ => (down, " ", down),
        };
        let text = format!("{left}{}{right}", between.repeat(inner));
        pen.style(x, y + row, width, 1, Style::reset());
        pen.text(x, y + row, &text, Style::new());
    }
    (x + 2, y + 1, width.saturating_sub(4))
}

fn help(ink: Ink, pen: &mut Pen<'_>) {
    let width = HELP.iter().map(|line| width_of(line)).max().unwrap_or(0) + 4;
    let height = u16::try_from(HELP.len()).unwrap_or(u16::MAX) + 2;
    let (x, y, room) = frame(pen, ink, width, height);
    for (y, line) in (y..).zip(HELP) {
        pen.within(x, y, room, line, Style::new());
    }
}

fn question(dialog: &Dialog, ink: Ink, pen: &mut Pen<'_>) {
    let (x, y, room) = frame(pen, ink, DIALOG_WIDTH_MAX, DIALOG_HEIGHT);
    let lock = visible::quoted(&dialog.grant.lock);
    let (token, whose) = (dialog.grant.token, &dialog.grant.whose);
    pen.within(x, y, room, &format!("Break {lock}, token {token}"), ink.alarm());
    pen.within(x, y + 1, room, &format!("held by {whose}"), Style::new());
    let note = "The holder is told; what it does goes on until it hears of it.";
    pen.within(x, y + 2, room, note, QUIET);
    let others: Vec<_> = dialog.others.iter().map(|name| visible::quoted(name)).collect();
    let others = match others.as_slice() {
        [] => "Locks that were asked for together with it go, too.".to_owned(),
        others => format!("With it go {}", others.join(", ")),
    };
    pen.within(x, y + 3, room, &others, Style::new());
    let fields = [
        (Field::Name, "name of the lock", &dialog.name),
        (Field::Reason, "reason          ", &dialog.reason),
    ];
    for (y, (field, word, text)) in (y + 5..).zip(fields) {
        let is_here = field == dialog.field;
        let cursor = if is_here { "_" } else { "" };
        let style = if is_here { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
        let prefix = format!("{word}  ");
        let end = pen.within(x, y, room, &prefix, style);
        let left = (x + room).saturating_sub(end);
        // Its end is what is being written.
        let mut tail = format!("{}{cursor}", visible::escaped(text));
        while width_of(&tail) > left && !tail.is_empty() {
            tail.remove(0);
        }
        pen.within(end, y, left, &tail, style);
    }
    let (hint, style) = match dialog.missing() {
        Some(missing) => (missing, QUIET),
        None => ("Enter breaks it", ink.alarm()),
    };
    pen.within(x, y + 7, room, &format!("{hint}; Tab: other field; Esc: leave it"), style);
}
