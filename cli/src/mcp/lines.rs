//! Messages by standard input and output: one a line.
//!
//! Always holds: a line has at most [`LINE_BYTES_MAX`] bytes; a longer one is read over and told. Both ends are threads
//! of their own, because such files block: the one that reads ends with its input, the one that writes once everything
//! is written or nobody reads.

use std::io::{self, BufRead, Read, Write};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Longest line that is taken: what an endpoint takes as a message.
pub(super) const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Lines that wait on either side.
const WAITING_MAX: usize = 64;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line without its end.
    Whole(Bytes),
    /// One that is too long.
    TooLong,
}

/// The lines of standard input. The thread is not waited for: nothing ends a read of a terminal.
pub(super) fn of_stdin() -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Ok(Some(line)) = read(&mut input) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A way to write lines to standard output, and the thread that does.
pub(super) fn to_stdout() -> (mpsc::Sender<Vec<u8>>, JoinHandle<()>) {
    let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(WAITING_MAX);
    let writer = std::thread::spawn(move || {
        let mut output = io::stdout().lock();
        while let Some(line) = receiver.blocking_recv() {
            if write(&mut output, line).is_err() {
                return;
            }
        }
    });
    (sender, writer)
}

fn read(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() > LINE_BYTES_MAX && line.last() != Some(&b'\n') {
        input.skip_until(b'\n')?;
        return Ok(Some(Line::TooLong));
    }
    while matches!(line.last(), Some(b'\n' | b'\r')) {
        line.pop();
    }
    Ok(Some(Line::Whole(line.into())))
}

/// JSON may have line ends between its parts, and none within them.
fn write(output: &mut impl Write, mut line: Vec<u8>) -> io::Result<()> {
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_or_passed_over() -> io::Result<()> {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let text = format!("one\r\n\n{long}\ntwo");
        let mut input = text.as_bytes();
        let mut lines = Vec::new();
        while let Some(line) = read(&mut input)? {
            lines.push(line);
        }
        let whole = |text: &'static str| Line::Whole(Bytes::from_static(text.as_bytes()));
        assert_eq!(lines, [whole("one"), whole(""), Line::TooLong, whole("two")]);
        Ok(())
    }

    #[test]
    fn a_message_is_one_line() -> io::Result<()> {
        let mut output = Vec::new();
        write(&mut output, b"{\r\n \"a\": 1\n}".to_vec())?;
        assert_eq!(output, b"{   \"a\": 1 }\n");
        Ok(())
    }
}
