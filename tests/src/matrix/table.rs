//! The table: a row for each client, a column for each server, and what works in the cell.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::{Seen, Server, Step};
use crate::peers::Client;

/// What stands around the table in a Markdown file.
const MARK: &str = "<!-- matrix -->";

/// How the reason begins where every step fails for the same.
pub(super) const NOT_CONNECTED: &str = "does not connect: ";

/// What the wire itself cannot do: server, whether the client speaks 2026-07-28, step, and why.
const IMPOSSIBLE: [(Server, bool, Step, &str); 0] = [];

/// What was seen of every client with every server.
#[derive(Debug, Default)]
pub struct Table {
    rows: BTreeMap<Client, BTreeMap<(Server, Step), Seen>>,
}

impl Table {
    /// Adds the row of a client.
    pub fn add(&mut self, client: Client, seen: BTreeMap<(Server, Step), Seen>) {
        self.rows.insert(client, seen);
    }

    /// What does not work, and is not known to be impossible; with the reason.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for (client, row) in &self.rows {
            for ((server, step), seen) in row {
                if let Seen::Fails(reason) = seen
                    && note(*client, *server, *step).is_none()
                {
                    let (client, server, step) = (client.title(), server.title(), step.word());
                    let failure = match reason.strip_prefix(NOT_CONNECTED) {
                        Some(reason) => format!("{client} -> {server}: {NOT_CONNECTED}{reason}"),
                        None => format!("{client} -> {server}: {step}: {reason}"),
                    };
                    if failures.last() != Some(&failure) {
                        failures.push(failure);
                    }
                }
            }
        }
        failures
    }

    fn cell(&self, client: Client, server: Server) -> String {
        let Some(row) = self.rows.get(&client) else { return String::new() };
        let word = |step: Step| match (row.get(&(server, step))?, note(client, server, step)) {
            (Seen::Works, _) => Some(step.word().to_owned()),
            (Seen::Fails(_), Some(number)) => Some(format!("-{}[{number}]", step.word())),
            (Seen::Fails(_), None) => Some(format!("~~{}~~", step.word())),
        };
        let words: Vec<String> = Step::ALL.into_iter().filter_map(word).collect();
        words.join(" ")
    }
}

impl fmt::Display for Table {
    /// As Markdown, with a line for each thing that the wire cannot do.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut head = "| client |".to_owned();
        for server in Server::ALL {
            write!(head, " {} |", server.title())?;
        }
        writeln!(formatter, "{head}\n|{}", "---|".repeat(Server::ALL.len() + 1))?;
        for client in self.rows.keys() {
            write!(formatter, "| {} |", client.title())?;
            for server in Server::ALL {
                write!(formatter, " {} |", self.cell(*client, server))?;
            }
            writeln!(formatter)?;
        }
        for (index, (_, _, _, reason)) in IMPOSSIBLE.iter().enumerate() {
            writeln!(formatter, "\n[{}] {reason}", index + 1)?;
        }
        Ok(())
    }
}

fn note(client: Client, server: Server, step: Step) -> Option<usize> {
    let same = |row: &(Server, bool, Step, &str)| (row.0, row.1, row.2) == (server, client.is_modern(), step);
    IMPOSSIBLE.iter().position(same).map(|index| index + 1)
}

/// The table that stands in a Markdown file between its marks; `None` where it has none.
#[must_use]
pub fn committed(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once(MARK)?;
    let (table, _) = rest.split_once(MARK)?;
    Some(table.trim_start_matches('\n'))
}

/// The file with another table; as it was where it has no marks.
#[must_use]
pub fn replace(text: &str, table: &str) -> String {
    match committed(text) {
        Some(old) => {
            let at = old.as_ptr() as usize - text.as_ptr() as usize;
            format!("{}{table}{}", &text[..at], &text[at + old.len()..])
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_stands_between_its_marks_and_is_replaced_there() {
        let text = "before\n<!-- matrix -->\n| old |\n<!-- matrix -->\nafter\n";
        assert_eq!(committed(text), Some("| old |\n"));
        let new = "before\n<!-- matrix -->\n| new |\n<!-- matrix -->\nafter\n";
        assert_eq!(replace(text, "| new |\n"), new);
        assert_eq!(replace("no marks", "| new |\n"), "no marks");
    }

    #[test]
    fn a_cell_names_what_works_and_strikes_what_does_not() {
        let mut table = Table::default();
        let seen = BTreeMap::from([
            ((Server::Time, Step::List), Seen::Works),
            ((Server::Time, Step::Call), Seen::Fails("gone".to_owned())),
        ]);
        table.add(Client::RustAuto, seen);
        assert_eq!(table.cell(Client::RustAuto, Server::Time), "list ~~call~~");
        assert_eq!(
            table.failures(),
            ["rmcp, discovers or initializes -> mcp-server-time, stdio: call: gone"]
        );
    }
}
