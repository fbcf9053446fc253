//! Replacing parts of a message in place: the id and the progress token, and nothing else.

use bytes::Bytes;

/// A part of a body, and what stands there instead.
pub(super) struct Part<'a> {
    pub(super) old: &'a Bytes,
    pub(super) new: String,
}

/// The body with its parts replaced, as one line. Every `old` must be a slice of `body`; one that is not is left out.
pub(super) fn splice(body: &Bytes, mut parts: Vec<Part<'_>>) -> Vec<u8> {
    // A slice of a `Bytes` points into it, so the difference of the addresses is its place.
    let offset = |part: &Part<'_>| (part.old.as_ptr() as usize).checked_sub(body.as_ptr() as usize);
    parts.retain(|part| offset(part).is_some_and(|start| start + part.old.len() <= body.len()));
    parts.sort_by_key(|part| offset(part));
    let mut line = Vec::with_capacity(body.len() + 32);
    let mut position = 0;
    for part in &parts {
        let Some(start) = offset(part).filter(|start| *start >= position) else { continue };
        line.extend_from_slice(&body[position..start]);
        line.extend_from_slice(part.new.as_bytes());
        position = start + part.old.len();
    }
    line.extend_from_slice(&body[position..]);
    // Line breaks stand only between tokens of JSON, never within a string.
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_replaced_where_they_stand() {
        let body = Bytes::from_static(b"{\"id\": 1,\n \"x\": 1, \"t\": \"a\"}");
        let (id, token) = (body.slice(7..8), body.slice(24..27));
        let parts = vec![Part { old: &token, new: "9".to_owned() }, Part { old: &id, new: "42".to_owned() }];
        assert_eq!(splice(&body, parts), b"{\"id\": 42,  \"x\": 1, \"t\": 9}");
    }
}
