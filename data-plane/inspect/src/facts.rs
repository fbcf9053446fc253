//! Facts: what policies may know of an argument, as parsers read it.
//!
//! Always holds: a fact is what the text says, read by the rules of its kind; nothing is looked up. What a parser cannot
//! read is told as that, never left out. Facts cost more than filters and are made for what a policy asks about only.

mod arguments;
pub mod sql;

pub use arguments::{FactsError, TEXTS_MAX, of};

pub use crate::path::{Path, read as path};
pub use crate::shell::{Line, read as shell};
pub use crate::target::{Target, read as url};

pub use gantry_model::facts::Size;
use serde_json::Value;

/// How large a value is. It recurses: whoever reads values bounds their depth.
pub fn size(value: &Value) -> Size {
    let mut size = Size { values: 1, ..Size::default() };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => (size.bytes, size.longest) = (text.len(), text.len()),
        Value::Array(elements) => {
            elements.iter().for_each(|element| add(&mut size, self::size(element)));
            size.depth += 1;
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                size.bytes += name.len();
                add(&mut size, self::size(value));
            }
            size.depth += 1;
        }
    }
    size
}

fn add(size: &mut Size, part: Size) {
    size.bytes += part.bytes;
    size.longest = size.longest.max(part.longest);
    size.values += part.values;
    size.depth = size.depth.max(part.depth);
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
