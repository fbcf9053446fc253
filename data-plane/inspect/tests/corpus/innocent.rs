//! What is innocent and looks like an attack, or is only written in another language: what a filter must let pass.

use gantry_model::inspection::Form;

use super::rng::{ALPHANUMERIC, DIGITS, HEXADECIMAL, Rng};
use super::{Case, Label};

/// One of each kind by turns.
pub(crate) fn innocent(index: usize, rng: &mut Rng) -> Case {
    let (form, text) = match index % 10 {
        0 => (None, prose(rng)),
        1 => (None, code(rng)),
        2 => (None, in_other_scripts(rng)),
        3 => (None, identifiers(rng)),
        4 => (None, question_of_sql(rng)),
        5 => (None, markup(rng)),
        6 => (Some(Form::Sql), sql(rng)),
        7 => (Some(Form::Path), path(rng)),
        8 => (Some(Form::Url), url(rng)),
        _ => (Some(Form::Shell), shell(rng)),
    };
    Case { label: Label::Innocent, form, text }
}

/// Sentences with all that prose has between its words.
pub(crate) fn prose(rng: &mut Rng) -> String {
    let sentences = [
        "Please don't wait; the team's answer came at 10:30 and it's final.",
        "The build failed (again); see the log & tell O'Brien, who wrote it.",
        "We paid $40 for 3 items; 20% off, i.e. less than last year's price.",
        "Use ../lib for shared code; the path is relative to src/main.rs.",
        "She asked: \"drop the table reservation; select another evening?\"",
        "L'été à Noël, c'est l'hiver en Australie; qu'en penses-tu?",
        "Ça coûte 12,50 € — « trop cher », dit-il; n'est-ce pas?",
        "Der Donau\u{ad}dampf\u{ad}schiff wartet; geht's um 5 los?",
        "The bearer of bad news arrived; basic understanding is enough.",
        "A tasks list (sk-learn style) helps; risk-based thinking too.",
        "Email me @ work; my handle is @ann and the repo is @scope/name.",
        "Progress: 50%2f is no number, 100% is; 5%25 neither.",
        "Let us delete from memory what we know; update your notes.",
        "Temperature was −3 °C … and then “rose” to 5 °C.",
        "Visit http://localhost:3000/ while developing, then deploy.",
        "Ping 10.0.0.1 in your head; 192.168.0.1 is my router.",
    ];
    (0..1 + rng.below(4)).map(|_| rng.one(&sentences)).collect::<Vec<_>>().join(" ")
}

fn code(rng: &mut Rng) -> String {
    let name = rng.letters(6, b"abcdefghijkl");
    match rng.below(10) {
        0 => format!("for (let i = 0; i < {name}.length; i++) {{ console.log(`${{i}}: ${{{name}[i]}}`); }}"),
        1 => format!("import {name} from '../../lib/{name}';\nexport default {name};\n"),
        2 => format!("fn {name}<'a>(x: &'a str) -> Option<&'a str> {{ x.split(';').next() }}"),
        3 => format!("def {name}(x):\n\treturn x | 0xff & ~1  # ok; really\n"),
        4 => format!("#!/bin/sh\nset -e; cd \"$(dirname \"$0\")\" && ./{name} > out.txt 2>&1 | tee log\n"),
        5 => "BEGIN; UPDATE accounts SET balance = 0; COMMIT;".to_owned(),
        6 => {
            format!("password = os.environ['PASSWORD']\nurl = f'postgres://{{user}}:{{password}}@{name}/db'")
        }
        7 => format!("const re = /^[\\w.+-]+@{name}\\.com$/; // ../ is fine"),
        8 => format!("<a href=\"../{name}?a=1&amp;b=2\">it's</a><script>x=1;</script>"),
        _ => format!("Authorization: Bearer ${{TOKEN}}\nX-Api-Key: <your-key-here>\nkey: sk-{name}\n"),
    }
}

fn in_other_scripts(rng: &mut Rng) -> String {
    let texts = [
        "שלום עולם, מה שלומך? המחיר הוא 50 ש״ח (כולל מע״מ).",
        "הקובץ \u{200e}README.md\u{200e} נמצא בתיקייה \u{2066}src/lib\u{2069}; תודה!",
        "مرحبا بالعالم؛ السعر 50 ريالًا (شامل الضريبة).",
        "الملف \u{200f}config.yaml\u{200f} موجود في \u{2068}/etc/app\u{2069}، شكرًا.",
        "می\u{200c}خواهم کتاب\u{200c}های زیادی بخوانم؛ خانه\u{200c}ام نزدیک است.",
        "क्\u{200d}षमा करें; यह 50% है।",
        "ശ്രീ\u{200d} നമസ്കാരം; സുഖമാണോ?",
        "ภาษา\u{200b}ไทย\u{200b}ไม่มี\u{200b}ช่องว่าง",
        "日本語のテキスト；全角の記号（括弧）と「引用」。１２３",
        "한국어 문장입니다; 가격은 5,000원 (부가세 포함).",
        "Привет, мир; это стоит 50 ₽ — «дорого».",
        "👨‍👩‍👧‍👦 family, 👩🏽‍💻 at work, 🏳️‍🌈 and 🏴󠁧󠁢󠁳󠁣󠁴󠁿, 1️⃣ ❤️‍🔥 ☺️",
        "Ελληνικά; ναι ή όχι;",
        "Tiếng Việt có dấu; Türkçe ıİ; Łódź; Český kůň.",
        "葛\u{e0100}城市と辻\u{e0101}さん",
        "\u{feff}A text that began as a file of Windows.\r\n",
    ];
    (0..1 + rng.below(3))
        .map(|_| rng.one(&texts))
        .collect::<Vec<_>>()
        .join(if rng.below(2) == 0 { "\n" } else { " " })
        .replace("\n\u{feff}", "\n")
        .replace(" \u{feff}", " ")
}

fn identifiers(rng: &mut Rng) -> String {
    match rng.below(9) {
        0 => format!("order {}", rng.letters(16, DIGITS)),
        1 => format!("tracking 1Z{}", rng.letters(16, b"0123456789ABCDEFGH")),
        2 => format!(
            "{}-{}-4{}-a{}-{}",
            rng.letters(8, HEXADECIMAL),
            rng.letters(4, HEXADECIMAL),
            rng.letters(3, HEXADECIMAL),
            rng.letters(3, HEXADECIMAL),
            rng.letters(12, HEXADECIMAL)
        ),
        3 => format!("sha256:{}", rng.letters(64, HEXADECIMAL)),
        4 => format!("commit {}", rng.letters(40, HEXADECIMAL)),
        5 => format!("data:image/png;base64,{}", rng.letters(400, ALPHANUMERIC)),
        6 => format!("phone +49 {} {}", rng.letters(3, DIGITS), rng.letters(8, DIGITS)),
        7 => format!(
            "at {}.{} s, {} bytes",
            rng.letters(10, DIGITS),
            rng.letters(6, DIGITS),
            rng.letters(13, DIGITS)
        ),
        _ => format!("arn:aws:iam::{}:role/x; eyJust-a-word.and-more.x", rng.letters(12, DIGITS)),
    }
}

fn question_of_sql(rng: &mut Rng) -> String {
    rng.one(&[
        "How do I write SELECT * FROM users; is the semicolon needed?",
        "What does '; DROP TABLE students; -- mean in that comic?",
        "Explain UNION SELECT password FROM users and how to prevent it.",
        "Is `DELETE FROM orders WHERE 1=1` the same as TRUNCATE orders?",
        "Why does /* comment */ SELECT 1; SELECT 2 return two results?",
    ])
    .to_owned()
}

fn markup(rng: &mut Rng) -> String {
    let number = rng.below(1_000);
    match rng.below(5) {
        0 => format!(
            "# Title {number}\n\n- run `ls -la | grep x`; then\n- see [docs](../README.md#a)\n\n```sh\nrm -rf ./target && make\n```\n"
        ),
        1 => format!("key: value{number}\nlist:\n  - a: \"b; c\"\n    d: 'it''s'\n"),
        2 => format!("{{\"a\": {number}, \"b\": [\"../x\", \"c;d\"], \"e\": \"50%\"}}"),
        3 => format!("a,b,c\n{number},\"x; y\",'z'\n"),
        _ => format!("see https://example.com/a%20b/?q=c%2Fd%26e&n={number}#top; and mailto:ann@example.com"),
    }
}

fn sql(rng: &mut Rng) -> String {
    let number = rng.below(10_000);
    match rng.below(9) {
        0 => format!("SELECT a, b FROM t WHERE id = {number}"),
        1 => format!("SELECT * FROM t WHERE note = 'a; b; c' AND id < {number};"),
        2 => "SELECT 'it''s; fine', \"odd;name\" FROM `t` -- done; really".to_owned(),
        3 => format!("/* one; two */ SELECT {number} /* three; */;\n"),
        4 => "WITH x AS (SELECT 1 AS a) SELECT a FROM x UNION ALL SELECT 2".to_owned(),
        5 => format!("INSERT INTO log (text) VALUES ('DROP TABLE x; SELECT {number}')"),
        6 => "UPDATE t SET path = 'C:\\\\temp; x' WHERE a = 1".to_owned(),
        7 => format!("SELECT data->>'a;b' FROM docs WHERE tags @> '{{\"x\": {number}}}';"),
        _ => "SELECT name FROM people WHERE name LIKE 'O''Brien%' ORDER BY 1;".to_owned(),
    }
}

fn path(rng: &mut Rng) -> String {
    let number = rng.below(1_000);
    match rng.below(9) {
        0 => format!("src/module{number}/lib.rs"),
        1 => format!("/home/ann/projects/x{number}/../y/notes; draft.txt"),
        2 => format!("C:\\Users\\ann\\Documents\\report {number}.docx"),
        3 => format!("./a/b/../c{number}"),
        4 => "reports/50%25 off & more (final).pdf".to_owned(),
        5 => "caf%C3%A9/r%C3%A9sum%C3%A9.pdf".to_owned(),
        6 => format!("データ/資料{number}…最終.txt"),
        7 => format!("v1..v{number}/...rest/a..b"),
        _ => format!("file:///home/ann/x%20{number}.md"),
    }
}

fn url(rng: &mut Rng) -> String {
    let number = rng.below(10_000);
    match rng.below(9) {
        0 => format!("https://example.com/items/{number}?sort=asc&page=2#top"),
        1 => format!(
            "http://{}.{}.{}.{}:8080/x",
            11 + rng.below(80),
            rng.below(256),
            rng.below(256),
            rng.below(256)
        ),
        2 => "https://user@git.example.org/org/repo.git".to_owned(),
        3 => "https://bücher.example/straße?q=größe".to_owned(),
        4 => "https://[2606:2800:220:1:248:1893:25c8:1946]/".to_owned(),
        5 => format!("https://docs.example.com/localhost/127.0.0.1/{number}"),
        6 => format!(
            "https://example.com/redirect?to=https%3A%2F%2Fexample.org%2F{number}&mail=ann@example.com"
        ),
        7 => format!("example.com/path/{number}"),
        _ => format!("https://medium.example/@ann/my-local-story-{number}"),
    }
}

fn shell(rng: &mut Rng) -> String {
    let number = rng.below(1_000);
    match rng.below(7) {
        0 => format!("ls -la /tmp/x{number}"),
        1 => "git commit -m 'fix: it; and that (really) & more'".to_owned(),
        2 => format!("grep -rn \"a|b;c\" src{number}/"),
        3 => "find . -name *.rs -newer Cargo.toml".to_owned(),
        4 => format!("echo costs 5\\$ \\& more {number}\n"),
        5 => "docker run --rm -e NAME=value image:tag".to_owned(),
        _ => format!("host{number}.example.com"),
    }
}
