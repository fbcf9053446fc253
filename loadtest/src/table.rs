//! A table that reads well in a terminal and is Markdown at the same time.
//!
//! What always holds: every row has as many cells as the head; the first column is aligned left,
//! the others right.

use std::fmt::{self, Display, Formatter};

use crate::figures::Summary;

/// Rows of text under a head.
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(head: Vec<String>) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty and surplus ones are dropped.
    pub fn push(&mut self, mut row: Vec<String>) {
        row.resize(self.head.len(), String::new());
        self.rows.push(row);
    }
}

impl Display for Table {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width_of = |column: usize| lines().map(|line| line[column].chars().count()).max();
        let widths: Vec<usize> =
            (0..self.head.len()).map(|column| width_of(column).unwrap_or(0).max(3)).collect();
        for (index, line) in lines().enumerate() {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(formatter, "| {cell:<width$} ")?,
                    _ => write!(formatter, "| {cell:>width$} ")?,
                }
            }
            writeln!(formatter, "|")?;
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    match column {
                        0 => write!(formatter, "| {:-<width$} ", "")?,
                        _ => write!(formatter, "| {:->1$}: ", "", width - 1)?,
                    }
                }
                writeln!(formatter, "|")?;
            }
        }
        Ok(())
    }
}

/// A figure as `median (min-max)`, divided by `scale`; the range is left out if it is one value.
#[must_use]
pub fn with_range(summary: Option<Summary>, scale: f64) -> String {
    let Some(Summary { median, min, max }) = summary else {
        return "-".to_owned();
    };
    let [median, min, max] = [median, min, max].map(|value| number(value / scale));
    if min == max { median } else { format!("{median} ({min}-{max})") }
}

/// A number with about three digits that matter, and thousands set apart.
#[must_use]
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let plain = format!("{value:.decimals$}");
    let (whole, fraction) = plain.split_once('.').map_or((plain.as_str(), ""), |parts| parts);
    let mut grouped = String::new();
    let digit_count = whole.trim_start_matches('-').len();
    for (index, digit) in whole.chars().enumerate() {
        let digits_left = whole.len() - index;
        if digit != '-' && digits_left < digit_count && digits_left.is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_digits_that_matter() {
        let values = [0.034, 2.5, 18.53, 229.4, 1_660.0, 43_600.2, 1_234_567.0, -1_234.0, -0.5];
        let expected = ["0.03", "2.50", "18.5", "229", "1,660", "43,600", "1,234,567", "-1,234", "-0.50"];
        assert_eq!(values.map(number), expected);
    }

    #[test]
    fn a_figure_shows_its_range_unless_it_is_one_value() {
        let summary = |median, min, max| Some(Summary { median, min, max });
        assert_eq!(with_range(summary(2_000.0, 1_500.0, 2_500.0), 1_000.0), "2.00 (1.50-2.50)");
        assert_eq!(with_range(summary(3.0, 3.0, 3.0), 1.0), "3.00");
        assert_eq!(with_range(None, 1.0), "-");
    }

    #[test]
    fn a_table_is_aligned_markdown() {
        let mut table = Table::new(vec!["".to_owned(), "direct".to_owned()]);
        table.push(vec!["calls/s".to_owned(), "43,600".to_owned()]);
        table.push(vec!["p50".to_owned()]);
        let expected = "|         | direct |\n\
                        | ------- | -----: |\n\
                        | calls/s | 43,600 |\n\
                        | p50     |        |\n";
        assert_eq!(table.to_string(), expected);
    }
}
