//! A server over stdio whose tools show what a gateway does with the one process: who answers, what it inherited,
//! progress, and calls that are held until another call releases them.
//!
//! It speaks 2025-11-25, reads one message per line, and ends with its input. It answers in one thread, so that the
//! order of its answers is decided by the calls alone.

use std::io::{self, BufRead, Write};

use serde_json::{Value, json};

/// Calls that are held at once; one more is refused.
const HELD_MAX: usize = 64;

/// How many steps `steps` tells of.
const STEPS: u64 = 3;

/// What is not answered yet.
#[derive(Default)]
struct Held {
    /// Id and name of each held call, in the order of arrival.
    calls: Vec<(Value, String)>,
    /// Id of the call that releases so many at once.
    release: Option<(Value, usize)>,
}

fn main() -> io::Result<()> {
    let mut held = Held::default();
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let Ok(message) = serde_json::from_str::<Value>(&line?) else { continue };
        // Notifications and answers need no answer of this server.
        if message.get("id").is_none() || message.get("method").is_none() {
            continue;
        }
        for answer in answers(&message, &mut held) {
            writeln!(output, "{answer}")?;
        }
        output.flush()?;
    }
    Ok(())
}

fn answers(message: &Value, held: &mut Held) -> Vec<Value> {
    let id = &message["id"];
    match message["method"].as_str().unwrap_or_default() {
        "initialize" => vec![result(
            id,
            json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "stdio-server", "version": env!("CARGO_PKG_VERSION")},
            }),
        )],
        "ping" => vec![result(id, json!({}))],
        "tools/list" => {
            let tool = |name: &str| json!({"name": name, "inputSchema": {"type": "object"}});
            let tools = ["who", "steps", "hold", "release"].map(tool);
            vec![result(id, json!({"tools": tools}))]
        }
        "tools/call" => call(id, &message["params"], held),
        _ => vec![json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "not offered"}})],
    }
}

fn call(id: &Value, params: &Value, held: &mut Held) -> Vec<Value> {
    let arguments = &params["arguments"];
    match params["name"].as_str().unwrap_or_default() {
        "who" => {
            let variables: Vec<String> =
                std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
            let who = json!({"pid": std::process::id(), "variables": variables, "held": held.calls.len()});
            vec![result(id, json!({"content": [], "structuredContent": who}))]
        }
        "steps" => {
            let token = &params["_meta"]["progressToken"];
            let step = |done: u64| {
                let params = json!({"progressToken": token, "progress": done, "total": STEPS});
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
            };
            (1..=STEPS).map(step).chain([text(id, "done")]).collect()
        }
        "hold" if held.calls.len() < HELD_MAX => {
            held.calls.push((id.clone(), arguments["name"].as_str().unwrap_or_default().to_owned()));
            released(held)
        }
        "release" => {
            let count = arguments["count"].as_u64().and_then(|count| usize::try_from(count).ok());
            held.release = Some((id.clone(), count.unwrap_or_default()));
            released(held)
        }
        name => vec![json!({
            "jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": format!("no tool {name:?}")},
        })],
    }
}

/// The held calls from the last to the first, once there are as many as are to be released.
fn released(held: &mut Held) -> Vec<Value> {
    match held.release.take_if(|(_, count)| held.calls.len() >= *count) {
        Some((id, _)) => {
            let calls = held.calls.drain(..).rev();
            calls.map(|(id, name)| text(&id, &name)).chain([text(&id, "released")]).collect()
        }
        None => Vec::new(),
    }
}

fn text(id: &Value, text: &str) -> Value {
    result(id, json!({"content": [{"type": "text", "text": text}]}))
}

fn result(id: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}
