//! The Rust SDK's client, doing what a plan says; its outcome has the form that the scripts of other clients print.

#![expect(deprecated, reason = "sampling is deprecated in the protocol, and still has to be answered")]

use std::time::Duration;

use rmcp::model::{
    ClientCapabilities, ClientConfig, CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams,
    ElicitResult, ElicitationAction, Implementation, ProgressNotificationParam, SamplingMessage,
};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt, NotificationContext, RequestContext};
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ErrorData};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Plan;

/// The time one step has. The slowest takes a second.
const STEP_TIME_MAX: Duration = Duration::from_secs(20);

/// Every server tells of three steps.
const PROGRESS_MIN: usize = 3;

/// How long after its result a call's progress may be handed over; it takes a millisecond.
const PROGRESS_TIME_MAX: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Person {
    content: Value,
    progress: watch::Sender<Vec<f64>>,
}

impl ClientHandler for Person {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder().enable_elicitation().enable_sampling().build();
        ClientConfig::new(capabilities, Implementation::new("rust-client", "1"))
    }

    async fn create_elicitation(
        &self,
        _request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(self.content.clone()))
    }

    async fn create_message(
        &self,
        _params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        Ok(CreateMessageResult::new(SamplingMessage::assistant_text("Paris"), "none".to_owned()))
    }

    async fn on_progress(&self, step: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        self.progress.send_modify(|seen| seen.push(step.progress));
    }
}

/// Does everything that the plan says.
pub(super) async fn visit(lifecycle: ClientLifecycleMode, plan: &Plan) -> Value {
    let (progress, mut seen) = watch::channel(Vec::new());
    let person = Person { content: plan.content.clone(), progress };
    let mut config = StreamableHttpClientTransportConfig::with_uri(plan.url.clone());
    config.auth_header = plan.key.clone();
    let transport = StreamableHttpClientTransport::from_config(config);
    let mut outcome = Map::new();
    let connecting = async {
        let connected = person.serve_with_lifecycle(transport, lifecycle).await;
        connected.map_err(|error| crate::peers::chain(&error))
    };
    let client = match timeout(STEP_TIME_MAX, connecting).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return json!({"connect": {"error": error}}),
        Err(_) => return json!({"connect": {"error": "no answer in time"}}),
    };
    outcome.insert("connect".to_owned(), json!({"result": null}));
    let protocol = client.peer_info().map(|info| info.protocol_version.to_string());
    outcome.insert("protocol".to_owned(), json!({"result": protocol}));
    let words = ["list"].into_iter().chain(plan.steps.keys().map(String::as_str));
    for word in words {
        let step = plan.steps.get(word).cloned().unwrap_or_default();
        let mut acted = match timeout(STEP_TIME_MAX, act(&client, word, step)).await {
            Ok(Ok(result)) => json!({"result": result}),
            Ok(Err(error)) => json!({"error": error}),
            Err(_) => json!({"error": "no answer in time"}),
        };
        if word == "progress" && acted.get("result").is_some() {
            // This client hands notifications to its handler side by side, in no order, and after the result too.
            let told = seen.wait_for(|seen| seen.len() >= PROGRESS_MIN);
            let mut steps = match timeout(PROGRESS_TIME_MAX, told).await {
                Ok(Ok(steps)) => steps.clone(),
                Ok(Err(_)) | Err(_) => Vec::new(),
            };
            steps.sort_by(f64::total_cmp);
            acted["result"]["seen"] = json!(steps);
        }
        outcome.insert(word.to_owned(), acted);
    }
    let closed = match timeout(STEP_TIME_MAX, client.cancel()).await {
        Ok(Ok(_)) => json!({"result": null}),
        Ok(Err(error)) => json!({"error": error.to_string()}),
        Err(_) => json!({"error": "no answer in time"}),
    };
    outcome.insert("close".to_owned(), closed);
    Value::Object(outcome)
}

async fn act(client: &RunningService<RoleClient, Person>, word: &str, step: Value) -> Result<Value, String> {
    match word {
        "list" => {
            let tools = client.list_all_tools().await.map_err(told)?;
            Ok(tools.into_iter().map(|tool| Value::String(tool.name.into())).collect())
        }
        "prompt" => client.get_prompt(typed(step)?).await.map(shown).map_err(told),
        "resource" => client.read_resource(typed(step)?).await.map(shown).map_err(told),
        _ => client.call_tool(typed(step)?).await.map(shown).map_err(told),
    }
}

fn typed<T: DeserializeOwned>(step: Value) -> Result<T, String> {
    serde_json::from_value(step).map_err(|error| error.to_string())
}

fn shown(result: impl Serialize) -> Value {
    serde_json::to_value(result).unwrap_or_default()
}

fn told(error: rmcp::ServiceError) -> String {
    error.to_string()
}
