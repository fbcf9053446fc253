//! How an error is shown to people: itself and its causes, on one line.

use std::{error::Error, iter};

/// An error and its causes, from the outermost to the innermost.
#[must_use]
pub fn on_one_line(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
