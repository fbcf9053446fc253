//! nginx as a plain reverse proxy: what it costs to pass calls on without understanding them.
//!
//! What always holds: one worker, connections to the upstream kept, no access log, no file written
//! for a body; files and settings are its own, so that it neither uses nor disturbs an nginx that
//! the machine runs.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Instant,
};

use super::{Missing, Name, Site, Target, TargetError, first_answer};
use crate::{
    driver::call::Endpoint,
    pinning::{Core, find_program},
    process::Process,
    upstream::MCP_PATH,
};

/// Starts nginx if it is installed.
///
/// # Errors
/// When it is not, or does not work.
pub async fn start(site: &Site) -> Result<Target, Missing> {
    let Some(program) = find_program("nginx") else {
        return Err(Missing::absent(Name::Nginx, "not installed".to_owned()));
    };
    start_program(site, &program).await.map_err(|error| Missing::broken(Name::Nginx, &error))
}

async fn start_program(site: &Site, program: &Path) -> Result<Target, TargetError> {
    let upstream = Endpoint::parse(&site.upstream_url, None)?;
    let folder = site.folder.join("nginx");
    fs::create_dir(&folder)?;
    let address = free_address()?;
    fs::write(folder.join("nginx.conf"), configuration(address, &upstream.authority))?;

    let mut command = site.pinning.command(Core::Gateway, program);
    command.arg("-p").arg(&folder).args(["-c", "nginx.conf", "-e", "stderr"]);
    command.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let process = Process::start(command, &folder, "nginx")?;
    let endpoint = Endpoint::parse(&format!("http://{address}{MCP_PATH}"), None)?;
    let answered = first_answer(&endpoint, started, site.tool_count).await;
    let (tool_names, start_to_first_answer) = match answered {
        Ok(answered) => answered,
        Err(error) => {
            let words = process.not_ready("nginx");
            process.stop().await?;
            // What nginx says about itself helps more, if it says anything.
            return Err(if matches!(error, TargetError::FirstAnswer(_)) { words.into() } else { error });
        }
    };
    Ok(Target {
        name: Name::Nginx,
        endpoint: Arc::new(endpoint),
        process: Some(process),
        version: version(program).await,
        start_to_first_answer,
        tool_names,
    })
}

/// nginx cannot choose a port by itself and say which, so one is chosen that was free just now.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Settings that make nginx as fast as it is: without `keepalive_requests` it would close
/// connections, and with smaller buffers a list would go through a file.
fn configuration(address: SocketAddr, upstream: &str) -> String {
    format!(
        "daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path client_body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream mcp {{
        server {upstream};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://mcp;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffers 32 16k;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"
    )
}

async fn version(program: &Path) -> String {
    let output = tokio::process::Command::new(program).arg("-v").output().await;
    let words = output.map(|output| String::from_utf8_lossy(&output.stderr).trim().to_owned());
    // "nginx version: nginx/1.22.1"
    words.ok().and_then(|words| Some(words.split_once('/')?.1.to_owned())).unwrap_or_default()
}
