//! Columns under their headings, as wide as their widest cell.

use std::fmt::Write;

/// A text table. The last column is never padded, so no line ends in blanks.
pub(crate) struct Table {
    /// The headings.
    heads: Vec<&'static str>,
    /// The rows, each with as many cells as there are headings.
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings and no rows.
    pub(crate) fn new(heads: &[&'static str]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells that are missing are empty.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        let mut cells = Vec::from(cells);
        cells.resize(self.heads.len(), String::new());
        self.rows.push(cells);
    }

    /// The table as text, each line with its end. Columns that are empty throughout are left out.
    pub(crate) fn render(&self) -> String {
        let columns: Vec<usize> = (0..self.heads.len())
            .filter(|at| self.rows.iter().any(|row| !row[*at].is_empty()))
            .collect();
        let widths: Vec<usize> = columns
            .iter()
            .map(|at| {
                let cells = self.rows.iter().map(|row| row[*at].chars().count()).max();
                cells.unwrap_or(0).max(self.heads[*at].chars().count())
            })
            .collect();
        let mut text = String::new();
        let heads = columns.iter().map(|at| self.heads[*at]).collect::<Vec<_>>();
        push_line(&mut text, &heads, &widths);
        for row in &self.rows {
            let cells = columns.iter().map(|at| row[*at].as_str()).collect::<Vec<_>>();
            push_line(&mut text, &cells, &widths);
        }
        text
    }
}

fn push_line(text: &mut String, cells: &[&str], widths: &[usize]) {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let _infallible = write!(line, "{cell:<width$}  ");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_empty_ones_are_left_out() {
        let mut table = Table::new(&["LOCK", "NOTE", "TOKEN"]);
        table.row(["größer".to_owned(), String::new(), "7".to_owned()]);
        table.row(["b".to_owned(), String::new(), "12".to_owned()]);
        assert_eq!(table.render(), "LOCK    TOKEN\ngrößer  7\nb       12\n");
    }
}
