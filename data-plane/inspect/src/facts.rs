//! Facts: what policies may know of an argument, as parsers read it.
//!
//! Always holds: a fact is what the text says, read by the rules of its kind; nothing is looked up. What a parser cannot
//! read is told as that, never left out. Facts cost more than filters and are made for what a policy asks about only.

pub mod sql;

pub use crate::path::{Path, read as path};
pub use crate::shell::{Line, read as shell};
pub use crate::target::{Target, read as url};

use serde_json::Value;

/// How large arguments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Bytes of all texts and of the names of all fields.
    pub bytes: usize,
    /// Bytes of the longest text.
    pub longest: usize,
    /// Values of all kinds.
    pub values: usize,
    /// Levels of lists and objects.
    pub depth: usize,
}

/// How large a value is. It recurses: whoever reads values bounds their depth.
pub fn size(value: &Value) -> Size {
    let mut size = Size { values: 1, ..Size::default() };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => (size.bytes, size.longest) = (text.len(), text.len()),
        Value::Array(elements) => {
            elements.iter().for_each(|element| size.take(self::size(element)));
            size.depth += 1;
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                size.bytes += name.len();
                size.take(self::size(value));
            }
            size.depth += 1;
        }
    }
    size
}

impl Size {
    fn take(&mut self, part: Size) {
        self.bytes += part.bytes;
        self.longest = self.longest.max(part.longest);
        self.values += part.values;
        self.depth = self.depth.max(part.depth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_of_all_that_is_in_a_value() {
        let value = serde_json::json!({"ab": ["cde", 1, {"f": null}], "g": "h"});
        assert_eq!(size(&value), Size { bytes: 8, longest: 3, values: 7, depth: 3 });
    }
}
