//! The tools of the demo server: definitions, and what they do.

use serde_json::{Value, json};

use super::notes::Notes;

/// What a tool answers.
pub(super) struct Outcome {
    /// For people and models.
    pub(super) text: String,
    /// The same for programs, where a tool promises it.
    pub(super) structured: Option<Value>,
    /// Whether the tool failed.
    pub(super) is_error: bool,
}

/// Every definition, in the order of the list.
pub(super) fn definitions() -> Value {
    let id = json!({"id": {"type": "integer", "minimum": 1, "description": "As list_notes shows it"}});
    json!([
        tool(
            "echo",
            "Echo",
            "Answers the message it is given.",
            object(
                &json!({
                    "message": {"type": "string", "maxLength": 4096, "description": "Any text"}
                }),
                &["message"]
            ),
            reads()
        ),
        with_output(
            tool(
                "add",
                "Add",
                "Adds two numbers.",
                object(
                    &json!({
                        "a": {"type": "number", "description": "The first number"},
                        "b": {"type": "number", "description": "The second number"}
                    }),
                    &["a", "b"]
                ),
                reads()
            ),
            &object(&json!({"sum": {"type": "number"}}), &["sum"])
        ),
        tool(
            "greet",
            "Greet",
            "Greets somebody in a language of choice.",
            object(
                &json!({
                    "name": {"type": "string", "minLength": 1, "maxLength": 100, "description": "Who is greeted"},
                    "language": {"enum": ["de", "en", "es", "fr"], "default": "en", "description": "The language"}
                }),
                &["name"]
            ),
            reads()
        ),
        tool("list_notes", "List notes", "Lists the notes with their ids.", object(&json!({}), &[]), reads()),
        tool("read_note", "Read a note", "Reads one note.", object(&id, &["id"]), reads()),
        tool(
            "delete_note",
            "Delete a note",
            "Deletes one note for good.",
            object(&id, &["id"]),
            json!({
                "readOnlyHint": false, "destructiveHint": true, "idempotentHint": true, "openWorldHint": false
            })
        ),
    ])
}

fn tool(name: &str, title: &str, description: &str, input: Value, annotations: Value) -> Value {
    json!({
        "name": name,
        "title": title,
        "description": description,
        "inputSchema": input,
        "annotations": annotations,
    })
}

fn with_output(mut tool: Value, output: &Value) -> Value {
    tool["outputSchema"] = output.clone();
    tool
}

fn object(properties: &Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn reads() -> Value {
    json!({"readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false})
}

/// Does what a tool does; `None`: there is no such tool.
pub(super) fn call(name: &str, arguments: &Value, notes: &Notes) -> Option<Outcome> {
    let text = |field: &str| arguments.get(field).and_then(Value::as_str);
    let number = |field: &str| arguments.get(field).and_then(Value::as_f64);
    let id = arguments.get("id").and_then(Value::as_u64);
    let outcome = match name {
        "echo" => text("message").map(done),
        "add" => number("a").zip(number("b")).map(|(a, b)| {
            let sum = a + b;
            Outcome { structured: Some(json!({"sum": sum})), ..done(&sum.to_string()) }
        }),
        "greet" => text("name").map(|name| done(&greeting(name, text("language").unwrap_or("en")))),
        "list_notes" => Some(done(&list(notes))),
        "read_note" => id.map(|id| match notes.read(id) {
            Some(note) => done(&format!("{}\n\n{}", note.title, note.text)),
            None => absent(id),
        }),
        "delete_note" => id.map(|id| match notes.delete(id) {
            true => done(&format!("Deleted note {id}.")),
            false => absent(id),
        }),
        _ => return None,
    };
    Some(
        outcome
            .unwrap_or_else(|| failed("An argument is missing or has the wrong type; see the input schema.")),
    )
}

fn greeting(name: &str, language: &str) -> String {
    match language {
        "de" => format!("Guten Tag, {name}!"),
        "es" => format!("¡Hola, {name}!"),
        "fr" => format!("Bonjour, {name} !"),
        _ => format!("Hello, {name}!"),
    }
}

fn list(notes: &Notes) -> String {
    let titles = notes.titles();
    if titles.is_empty() {
        return "There is no note.".to_owned();
    }
    titles.iter().map(|(id, title)| format!("{id}: {title}")).collect::<Vec<_>>().join("\n")
}

fn absent(id: u64) -> Outcome {
    failed(&format!("There is no note {id}; list_notes shows the notes."))
}

fn done(text: &str) -> Outcome {
    Outcome { text: text.to_owned(), structured: None, is_error: false }
}

fn failed(text: &str) -> Outcome {
    Outcome { is_error: true, ..done(text) }
}
