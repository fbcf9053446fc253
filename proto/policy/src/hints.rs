//! A tool's hints: what its server claims about it.
//!
//! Always holds: what a server does not say, or says in a wrong form, is taken as the specification's default, which
//! is the cautious one. A hint is a claim, not a fact: nothing here makes a server keep it, so a policy that relies
//! on hints is as good as the server is trusted.

use serde::Deserialize;

/// What a server claims about a tool (`annotations` of its definition).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hints {
    /// The tool changes nothing (`readOnlyHint`; default no).
    pub read_only: bool,
    /// The tool may destroy or overwrite (`destructiveHint`; default yes, but no for a tool that is read-only).
    pub destructive: bool,
    /// A repeated call changes nothing more (`idempotentHint`; default no, but yes for a tool that is read-only).
    pub idempotent: bool,
    /// The tool reaches outside of a closed domain, such as to the web (`openWorldHint`; default yes).
    pub open_world: bool,
}

impl Default for Hints {
    /// The hints of a tool of which nothing is claimed.
    fn default() -> Hints {
        Hints { read_only: false, destructive: true, idempotent: false, open_world: true }
    }
}

#[derive(Deserialize)]
struct Definition {
    #[serde(default)]
    annotations: Option<Annotations>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Annotations {
    read_only_hint: Option<bool>,
    destructive_hint: Option<bool>,
    idempotent_hint: Option<bool>,
    open_world_hint: Option<bool>,
}

impl Hints {
    /// The hints in a tool's definition, which is JSON as the server sent it. One hint of a wrong form, or one that
    /// is given twice, discards all of them: whoever contradicts himself has claimed nothing.
    pub fn from_definition(json: &str) -> Hints {
        let definition: Option<Definition> = serde_json::from_str(json).ok();
        let Some(claims) = definition.and_then(|definition| definition.annotations) else {
            return Hints::default();
        };
        let unclaimed = Hints::default();
        let read_only = claims.read_only_hint.unwrap_or(unclaimed.read_only);
        // By the specification these two are meaningful only when `readOnlyHint == false`; without this, forbidding
        // what is destructive would forbid every reader whose server says only that it reads.
        Hints {
            read_only,
            destructive: claims.destructive_hint.unwrap_or(unclaimed.destructive && !read_only),
            idempotent: claims.idempotent_hint.unwrap_or(unclaimed.idempotent || read_only),
            open_world: claims.open_world_hint.unwrap_or(unclaimed.open_world),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_claimed_takes_the_cautious_default() {
        let cautious = Hints { read_only: false, destructive: true, idempotent: false, open_world: true };
        assert_eq!(Hints::default(), cautious);
        for json in [
            r#"{"name": "x"}"#,
            r#"{"name": "x", "annotations": null}"#,
            r#"{"name": "x", "annotations": {}}"#,
            r#"{"name": "x", "annotations": {"title": "X", "readOnlyHint": null}}"#,
        ] {
            assert_eq!(Hints::from_definition(json), cautious, "{json}");
        }
    }

    #[test]
    fn a_claim_of_a_wrong_form_discards_all_claims() {
        for json in [
            "",
            "[]",
            r#"{"annotations": {"readOnlyHint": true"#,
            r#"{"annotations": {"readOnlyHint": "true"}}"#,
            r#"{"annotations": {"destructiveHint": false, "openWorldHint": 0}}"#,
            r#"{"annotations": {"destructiveHint": true, "destructiveHint": false}}"#,
            r#"{"annotations": {"destructiveHint": true}, "annotations": {"destructiveHint": false}}"#,
        ] {
            assert_eq!(Hints::from_definition(json), Hints::default(), "{json}");
        }
        let deep = format!(r#"{{"annotations": {}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(Hints::from_definition(&deep), Hints::default());
    }

    #[test]
    fn a_read_only_tool_is_harmless_unless_its_server_says_otherwise() {
        let reader = Hints { read_only: true, destructive: false, idempotent: true, open_world: true };
        assert_eq!(Hints::from_definition(r#"{"annotations": {"readOnlyHint": true}}"#), reader);
        let liar = Hints { destructive: true, ..reader };
        assert_eq!(
            Hints::from_definition(r#"{"annotations": {"readOnlyHint": true, "destructiveHint": true}}"#),
            liar
        );
    }

    #[test]
    fn every_claim_is_read() {
        let json = r#"{"name": "x", "inputSchema": {"type": "object"}, "annotations":
            {"readOnlyHint": false, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false}}"#;
        assert_eq!(
            Hints::from_definition(json),
            Hints { read_only: false, destructive: false, idempotent: true, open_world: false }
        );
    }
}
