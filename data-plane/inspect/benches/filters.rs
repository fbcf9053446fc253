//! What filters find, and what they cost: `cargo bench -p gantry-inspect`; `-- --check` exits 1 where a figure misses its
//! bar, `-- SEED` takes another corpus, and `-- --odd` tells what was missed and what was found where nothing is.
//!
//! The corpus is written here, so the rates say how the filters do on what their authors thought of, and not how they
//! would do on the attacks of somebody who has read them. Times are of this machine at this moment.

#[path = "../tests/corpus/cases.rs"]
mod corpus;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use corpus::definitions;
use corpus::rates::{self, Rate};
use corpus::rng::Rng;
use gantry_inspect::definition::Scan;
use gantry_inspect::{Detectors, Inspection, Limits, Modes, Redactor, Written};
use gantry_model::inspection::{Detector, Filter, Mode};
use serde_json::{Value, json};

/// The seed that the README tells of.
const SEED: u64 = 20_261_123;
/// Attacks, and as many innocent cases.
const CASES: usize = 9_000;
const CALLS: usize = 20_000;
const P99_US_MAX: f64 = 15.0;
const DETECTION_MIN: f64 = 99.0;
const FALSE_POSITIVE_MAX: f64 = 0.5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let seed = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(SEED);
    let tells = has("--odd");
    let mut odd = |what: &str, text: &str| {
        if tells {
            eprintln!("{what}: {:?}", text.chars().take(160).collect::<String>());
        }
    };
    println!("seed {seed}, {CASES} attacks and {CASES} innocent texts\n");
    println!("| looks for | attacks | found | innocent | found in them |\n|---|---|---|---|---|");
    let mut missed = Vec::new();
    for (filter, rate) in rates::filters(seed, CASES, &mut odd) {
        print(filter.as_str(), &rate);
        if rate.detection() < DETECTION_MIN || rate.false_positive() > FALSE_POSITIVE_MAX {
            missed.push(format!("rates of {}", filter.as_str()));
        }
    }
    println!("\n| takes out | texts | found | without | found in them |\n|---|---|---|---|---|");
    for (detector, rate) in rates::detectors(seed, CASES, &mut odd) {
        print(detector.as_str(), &rate);
    }
    println!("\n| in definitions | attacks | found | innocent | found in them |\n|---|---|---|---|---|");
    for (what, rate) in definitions::rates(seed, CASES, &mut odd) {
        print(what, &rate);
        if rate.detection() < DETECTION_MIN || rate.false_positive() > FALSE_POSITIVE_MAX {
            missed.push(format!("rates of {what}"));
        }
    }
    println!("\n| all filters on, arguments of | us, median | p99 |\n|---|---|---|");
    for (name, bytes, arguments) in objects() {
        let (median, p99) = time(&arguments, Modes::all(Mode::Report));
        println!("| {name}, {bytes} bytes | {median:.1} | {p99:.1} |");
        if p99 > P99_US_MAX {
            missed.push(format!("time for {name}"));
        }
    }
    println!("\n| one filter on, prose | us, median |\n|---|---|");
    for filter in Filter::OF_CALLS {
        let (median, _) = time(&objects()[0].2, Modes::all(Mode::Off).with(filter, Mode::Report));
        println!("| {} | {median:.2} |", filter.as_str());
    }
    println!("\nredaction of an answer by all detectors: {:.0} MB/s", redaction());
    let (per_tool, speed) = scan();
    println!("scan of 300 definitions: {per_tool:.1} us each, {speed:.0} MB/s");
    if missed.is_empty() || !has("--check") {
        return ExitCode::SUCCESS;
    }
    eprintln!("missed: {}", missed.join(", "));
    ExitCode::FAILURE
}

fn print(name: &str, rate: &Rate) {
    let Rate { attacks, innocent, .. } = rate;
    println!(
        "| {name} | {attacks} | {:.2} % | {innocent} | {:.2} % |",
        rate.detection(),
        rate.false_positive()
    );
}

/// Arguments of 1 KiB, as JSON, of several sorts.
fn objects() -> Vec<(&'static str, usize, Value)> {
    let prose =
        "Please don't wait; the team's answer came at 10:30 and it's final. Use ../lib for shared code. ";
    let sized = |make: &dyn Fn(&str) -> Value, part: &str| {
        let mut text = String::new();
        while make(&text).to_string().len() < 1_024 {
            text.push_str(part);
        }
        make(&text)
    };
    let all_forms = |text: &str| {
        json!({
            "query": "SELECT a, b FROM t WHERE note = 'a; b' AND id < 7; -- done",
            "path": "/home/ann/projects/x/../y/100%25.md",
            "url": "https://user@example.com:8443/items/7?sort=asc#top",
            "command": "grep -rn \"a|b;c\" src",
            "text": text, "limit": 10, "flags": ["a", "b"], "more": {"deep": [1, 2, 3]},
        })
    };
    let words: Vec<String> = (0..70).map(|index| format!("word {index}")).collect();
    let objects = [
        ("prose", sized(&|text| json!({"text": text, "limit": 10}), prose)),
        ("every form", sized(&all_forms, prose)),
        ("SQL", sized(&|text| json!({"query": format!("SELECT {text} 1;")}), "a.column, 'a; b', ")),
        ("Hebrew", sized(&|text| json!({"text": text}), "הקובץ \u{200e}README\u{200e} נמצא; ")),
        ("emoji", sized(&|text| json!({"text": text}), "👩🏽\u{200d}💻 and 🏳\u{fe0f}\u{200d}🌈 ")),
        ("escapes", sized(&|text| json!({"path": text}), "caf%C3%A9/r%C3%A9sum%C3%A9/a%252eb/")),
        ("many texts", json!({"list": words})),
    ];
    objects.map(|(name, value)| (name, value.to_string().len(), value)).into()
}

fn time(arguments: &Value, modes: Modes) -> (f64, f64) {
    let inspection = Inspection { modes, limits: Limits::default(), ..corpus::inspection() };
    let mut took: Vec<f64> = (0..CALLS)
        .map(|_| {
            let began = Instant::now();
            black_box(inspection.inspect(black_box(arguments)));
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    took.sort_by(f64::total_cmp);
    (took[CALLS / 2], took[CALLS * 99 / 100])
}

fn redaction() -> f64 {
    let all = [Detector::Keys, Detector::Emails, Detector::Cards, Detector::Ibans];
    let detectors = all.into_iter().fold(Detectors::default(), Detectors::with);
    let (_, _, object) = &objects()[1];
    let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": vec![object; 1_000]}}).to_string();
    let mut best = f64::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        let (mut redactor, mut out) = (Redactor::new(detectors, &[], Written::Json), Vec::new());
        for part in answer.as_bytes().chunks(16 * 1024) {
            redactor.push(part, &mut out);
        }
        redactor.finish(&mut out);
        black_box(&out);
        best = best.min(began.elapsed().as_secs_f64());
    }
    answer.len() as f64 / best / 1e6
}

/// Microseconds for a definition of a large catalog, and bytes of it per microsecond.
fn scan() -> (f64, f64) {
    const TOOLS: usize = 300;
    let mut rng = Rng::new(SEED);
    let tools: Vec<Value> = (0..TOOLS)
        .map(|index| {
            let mut tool = definitions::tool(index, &mut rng);
            tool["name"] = format!("tool_{index}").into();
            tool
        })
        .collect();
    let bytes: usize = tools.iter().map(|tool| tool.to_string().len()).sum();
    let catalog = definitions::catalog(&tools);
    let mut best = f64::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        black_box(Scan::of(black_box(&catalog)));
        best = best.min(began.elapsed().as_secs_f64());
    }
    (best / TOOLS as f64 * 1e6, bytes as f64 / best / 1e6)
}
