//! Runs the conformance fixture server by itself: `fixture-server [--port PORT] [--era legacy|modern|dual]`.
//!
//! It prints its URL as the one line on stdout, and ends when stdin closes, or on SIGTERM or SIGINT.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use gantry_tests::fixture;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// A server that offers everything the MCP conformance suite calls, on 127.0.0.1.
#[derive(Debug, Parser)]
struct Arguments {
    /// The port to listen on; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Which revisions it speaks.
    #[arg(long, value_enum, default_value_t)]
    era: Era,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Era {
    /// Up to 2025-11-25.
    Legacy,
    /// 2026-07-28.
    Modern,
    /// All of them.
    #[default]
    Dual,
}

impl From<Era> for fixture::Era {
    fn from(era: Era) -> Self {
        match era {
            Era::Legacy => Self::Legacy,
            Era::Modern => Self::Modern,
            Era::Dual => Self::Dual,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (stdin_closed, closed) = oneshot::channel();
    // A thread of its own: a blocking read cannot be cancelled, and must not keep the process alive.
    std::thread::spawn(move || {
        // Whatever ends the reading, an end of input or an error, ends the server.
        let _ = io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink());
        let _ = stdin_closed.send(());
    });
    match run(arguments.era.into(), arguments.port, closed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fixture-server: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn run(
    era: fixture::Era,
    port: u16,
    stdin_closed: oneshot::Receiver<()>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = fixture::Server::start_as(era, port).await?;
    println!("{}", server.url());
    io::stdout().flush()?;
    tokio::select! {
        _ = stdin_closed => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    server.stop().await;
    Ok(())
}
