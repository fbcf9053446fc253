//! Texts of answers: what detectors are to take out, and what only looks like it.

use gantry_model::inspection::Detector;

use super::attacks::secret;
use super::innocent;
use super::rng::{DIGITS, Rng};

/// A text, and what a detector is to find in it.
pub(crate) struct Answer {
    pub(crate) text: String,
    /// `None`: nothing.
    pub(crate) holds: Option<Detector>,
    /// What is to be taken out.
    pub(crate) what: String,
}

/// One with something to take out.
pub(crate) fn telling(index: usize, rng: &mut Rng) -> Answer {
    let (detector, what) = match index % 4 {
        0 => (Detector::Keys, secret(rng)),
        1 => (Detector::Emails, email(rng)),
        2 => (Detector::Cards, card(rng)),
        _ => (Detector::Ibans, iban(rng)),
    };
    let text = match rng.below(4) {
        0 => what.clone(),
        1 => format!("{}\n{what}\n{}", innocent::prose(rng), innocent::prose(rng)),
        2 => format!("value: {what}, checked"),
        _ => format!("<td>{what}</td>"),
    };
    Answer { text, holds: Some(detector), what }
}

/// One with nothing.
pub(crate) fn plain(index: usize, rng: &mut Rng) -> Answer {
    let text = match index % 5 {
        // What is an address there is one here as well.
        0 => innocent::innocent(index / 5, rng).text.replace("ann@example.com", "nobody"),
        1 => format!("order {}", rng.letters(16, DIGITS)),
        2 => format!(
            "id {}-{}, total {}.00",
            rng.letters(8, DIGITS),
            rng.letters(8, DIGITS),
            rng.letters(14, DIGITS)
        ),
        3 => format!("REF {}{}", rng.one(&["DE", "FR", "GB", "XX"]), rng.letters(20, DIGITS)),
        _ => rng
            .one(&[
                "git@github.com:org/repo.git",
                "npm i @scope/pkg@1.2.3",
                "icon@2x.png and @ann",
                "user@host",
            ])
            .to_owned(),
    };
    Answer { text, holds: None, what: String::new() }
}

fn email(rng: &mut Rng) -> String {
    let name = rng.one(&["ann", "bob.smith", "o_brien", "first.last+tag", "info", "x-y-z", "jörg"]);
    let domain = rng.one(&["example.com", "mail.example.co.uk", "bücher.example", "sub-domain.example.org"]);
    format!("{name}{}@{domain}", rng.below(1_000))
}

fn card(rng: &mut Rng) -> String {
    let (begin, length) = *rng.one(&[
        &("4", 16),
        &("51", 16),
        &("2221", 16),
        &("37", 15),
        &("6011", 16),
        &("3530", 16),
        &("36", 14),
    ]);
    let mut digits = begin.to_owned() + &rng.letters(length - begin.len() - 1, DIGITS);
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let digit = u32::from(digit - b'0') * if index % 2 == 0 { 2 } else { 1 };
            digit / 10 + digit % 10
        })
        .sum();
    digits.push_str(&((10 - sum % 10) % 10).to_string());
    match (rng.below(3), length) {
        (0, 16) => grouped(&digits, " "),
        (1, 16) => grouped(&digits, "-"),
        _ => digits,
    }
}

fn grouped(text: &str, separator: &str) -> String {
    let parts: Vec<_> = text.as_bytes().chunks(4).map(|part| String::from_utf8_lossy(part)).collect();
    parts.join(separator)
}

fn iban(rng: &mut Rng) -> String {
    let (country, length) = *rng.one(&[&("DE", 22), &("FR", 27), &("NL", 18), &("CH", 21), &("ES", 24)]);
    let account = match country {
        "NL" => "ABNA".to_owned() + &rng.letters(10, DIGITS),
        _ => rng.letters(length - 4, DIGITS),
    };
    let moved = format!("{account}{country}00");
    let rest = moved.bytes().fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    let number = format!("{country}{:02}{account}", 98 - rest);
    if rng.below(2) == 0 { grouped(&number, " ") } else { number }
}
