//! Standard output and standard error: formats, tables, colour.
//!
//! Always holds: data goes to standard output and talk to standard error; colour only to a terminal, and never
//! when `NO_COLOR` is set; a reader that leaves ends the command quietly.

use std::io::{self, IsTerminal, Write};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use crate::context::Access;
use crate::failure::Failure;

/// The form of what a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// YAML; several documents where there are several things.
    Yaml,
}

/// The flags of whatever shows what the service knows.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReadFlags {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// The form of what a command prints that has no documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum TextFormat {
    /// For people.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// Whether and how text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint {
    colour: bool,
}

impl Paint {
    /// No colour.
    #[cfg(test)]
    pub(crate) const PLAIN: Paint = Paint { colour: false };

    /// For standard output.
    pub(crate) fn stdout() -> Paint {
        Paint { colour: colour_wanted() && io::stdout().is_terminal() }
    }

    /// For standard error.
    pub(crate) fn stderr() -> Paint {
        Paint { colour: colour_wanted() && io::stderr().is_terminal() }
    }

    /// Bad, or removed.
    pub(crate) fn red(self, text: &str) -> String {
        self.code("31", text)
    }

    /// Good, or added.
    pub(crate) fn green(self, text: &str) -> String {
        self.code("32", text)
    }

    /// Doubtful.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.code("33", text)
    }

    /// Beside the point.
    pub(crate) fn cyan(self, text: &str) -> String {
        self.code("36", text)
    }

    /// Important.
    pub(crate) fn bold(self, text: &str) -> String {
        self.code("1", text)
    }

    fn code(self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn colour_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes data to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ReaderLeft,
        _ => Failure::error(
            format!("standard output cannot be written: {error}"),
            "check where the output goes, and run the command again",
        ),
    })
}

/// Writes data in the form that was asked for; `table` makes the one for people.
pub(crate) fn show<T: Serialize>(
    data: &T,
    format: Format,
    table: impl FnOnce() -> String,
) -> Result<(), Failure> {
    print(&match format {
        Format::Table => table(),
        Format::Json => json(data),
        Format::Yaml => yaml(data),
    })
}

/// Says something to the person. Whether anybody listens does not matter to the command.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says that something deserves a look.
pub(crate) fn warn(text: &str) {
    say(&format!("{} {text}", Paint::stderr().yellow("warning:")));
}

/// A table without lines, its columns two blanks apart.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| visible(cell)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// One JSON document, indented.
pub(crate) fn json(value: &impl Serialize) -> String {
    // What commands print has text keys only, so it always has a JSON form.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// One YAML document.
pub(crate) fn yaml(value: &impl Serialize) -> String {
    serde_yaml_ng::to_string(value).unwrap_or_default()
}

/// Text from elsewhere as it may be shown in a terminal: control characters are escaped, line ends kept.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => shown.push(character),
            character if character.is_control() || is_unseen(character) => {
                shown.extend(character.escape_default());
            }
            character => shown.push(character),
        }
    }
    shown
}

/// Whether a terminal shows nothing for a character, or shows others in another order for it: what Unicode calls format,
/// separators of lines, selectors, and letters that are blank.
fn is_unseen(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
        | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1345f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// The first line of a text, cut at `length_max` characters.
pub(crate) fn first_line(text: &str, length_max: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= length_max {
        return visible(line);
    }
    let mut cut: String = visible(line).chars().take(length_max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_lines_and_no_blanks_at_its_right() {
        let rows = vec![vec!["a".to_owned(), "b".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(table(&["ONE", "TWO"], rows), "ONE     TWO\na       b\nlonger\n");
    }

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(visible("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\n");
        for (unseen, shown) in [
            ("a\u{202e}b", "a\\u{202e}b"),
            ("\u{200b}\u{e0041}", "\\u{200b}\\u{e0041}"),
            ("é ü 語", "é ü 語"),
        ] {
            assert_eq!(visible(unseen), shown);
        }
        assert_eq!(first_line("one two\nthree", 5), "one …");
    }
}
