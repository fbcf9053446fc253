//! Where a URL leads: to the public network, or to what only a server's own network reaches.
//!
//! Always holds: a URL is read as browsers do and as RFC 3986 has it, and with every host that a lenient reader may find
//! in it; each of them must be public. Addresses count in every notation (decimal, hexadecimal, octal, shortened,
//! within IPv6). Names are judged by what they say: no name is resolved, so that a public name of a private address
//! passes, but for names that say the address.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Hosts that are looked at in one authority: what has more `@` is refused.
const READINGS_MAX: usize = 8;

const PRIVATE: &str = "private address";
const LOOPBACK: &str = "loopback address";
const LINK_LOCAL: &str = "link-local or metadata address";
const RESERVED: &str = "reserved address";
const INTERNAL: &str = "internal name";
const SCHEME: &str = "scheme";
const MALFORMED: &str = "malformed authority";

/// Schemes that lead past the network, or speak to what is not meant to be spoken to.
const SCHEMES_FORBIDDEN: [&str; 18] = [
    "dict",
    "expect",
    "file",
    "gopher",
    "gophers",
    "imap",
    "jar",
    "ldap",
    "ldapi",
    "ldaps",
    "local_file",
    "netdoc",
    "phar",
    "php",
    "smb",
    "tftp",
    "unix",
    "view-source",
];

/// Schemes of the web.
const WEB: [&str; 5] = ["http", "https", "ws", "wss", "ftp"];

/// What browsers take out of a URL.
const PASSED_OVER: [char; 3] = ['\t', '\n', '\r'];

/// Ends of names that stand for nothing in the public network.
const SUFFIXES_INTERNAL: [&str; 13] = [
    "localhost",
    "local",
    "localdomain",
    "internal",
    "intranet",
    "lan",
    "home",
    "corp",
    "private",
    "home.arpa",
    "cluster",
    "consul",
    "svc",
];

/// Public names that lead to loopback.
const NAMES_OF_LOOPBACK: [&str; 5] = ["localtest.me", "lvh.me", "vcap.me", "lacolhost.com", "yoogle.com"];

/// Public names below which a name says its address.
const NAMES_OF_ADDRESSES: [&str; 4] = ["nip.io", "sslip.io", "xip.io", "traefik.me"];

/// Says why a text that is said to be a URL may not be gone to.
pub(crate) fn forbidden(text: &str) -> Option<&'static str> {
    let text = &*joined(trimmed(text));
    let scheme = scheme_of(text);
    if scheme.is_some_and(|scheme| SCHEMES_FORBIDDEN.iter().any(|bad| bad.eq_ignore_ascii_case(scheme))) {
        return Some(SCHEME);
    }
    hosts(text)
}

/// The same for a text of which nothing is said, where it begins as a URL of the web does. What follows a space may be
/// of the URL, as parsers take it, or of another sentence.
pub(crate) fn forbidden_in_any(text: &str) -> Option<&'static str> {
    let text = trimmed(text);
    if !begins_as_web(text) {
        return None;
    }
    let text = joined(text);
    let first = text.split(' ').next().unwrap_or_default();
    hosts(first).or_else(|| if first.len() < text.len() { host_of(parse(&text).as_ref()) } else { None })
}

fn trimmed(text: &str) -> &str {
    text.trim_matches(|letter: char| letter <= ' ' || letter.is_whitespace())
}

/// Browsers pass over line breaks and tabs wherever they are.
fn joined(text: &str) -> Cow<'_, str> {
    match text.contains(PASSED_OVER) {
        true => text.replace(PASSED_OVER, "").into(),
        false => text.into(),
    }
}

/// Whether a text begins with a scheme of the web, and not only with its name (`http:` and a line of YAML).
fn begins_as_web(text: &str) -> bool {
    WEB.iter().any(|scheme| {
        let mut letters = text.chars().filter(|letter| !PASSED_OVER.contains(letter));
        let has_scheme = scheme
            .chars()
            .all(|known| letters.next().is_some_and(|letter| letter.eq_ignore_ascii_case(&known)));
        let is_behind = |text: &str| text.starts_with(|letter: char| !letter.is_whitespace());
        has_scheme
            && letters.next() == Some(':')
            && (matches!(letters.next(), Some('/' | '\\'))
                || text.split_once(':').is_some_and(|(_, behind)| is_behind(behind)))
    })
}

/// What policies may know of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// In lower case.
    pub scheme: String,
    /// As browsers read it: in lower case, an address in its one usual notation; empty where there is none.
    pub host: String,
    /// As it is said, or as the scheme has it.
    pub port: Option<u16>,
    /// Whether any reading leads to what is not public.
    pub is_private: bool,
    /// Whether it names a user.
    pub has_user: bool,
}

/// Reads a URL; `None`: it is none.
pub fn read(text: &str) -> Option<Target> {
    let url = parse(text)?;
    let has_user = !url.username().is_empty() || url.password().is_some();
    Some(Target {
        scheme: url.scheme().to_owned(),
        host: url.host_str().unwrap_or_default().to_owned(),
        port: url.port_or_known_default(),
        is_private: hosts(text).is_some(),
        has_user,
    })
}

/// The scheme of a text with `://`, or with `:` alone where it is one that is known.
fn scheme_of(text: &str) -> Option<&str> {
    let end = memchr::memchr(b':', text.as_bytes().get(..32.min(text.len()))?)?;
    let scheme = text.get(..end)?;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._".contains(&byte);
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(is_letter);
    let has_slashes = text.get(end + 1..)?.starts_with(['/', '\\']);
    let is_known = || is_web(scheme) || SCHEMES_FORBIDDEN.iter().any(|bad| bad.eq_ignore_ascii_case(scheme));
    (is_scheme && (has_slashes || is_known())).then_some(scheme)
}

fn is_web(scheme: &str) -> bool {
    WEB.iter().any(|known| known.eq_ignore_ascii_case(scheme))
}

/// As browsers read it; what has no scheme as what somebody types.
fn parse(text: &str) -> Option<Url> {
    match scheme_of(text) {
        Some(_) => Url::parse(text).ok(),
        None => Url::parse(&format!("http://{}", text.trim_start_matches(['/', '\\']))).ok(),
    }
}

fn hosts(text: &str) -> Option<&'static str> {
    let url = parse(text);
    host_of(url.as_ref()).or_else(|| other_readings(text, url.is_some()))
}

fn host_of(url: Option<&Url>) -> Option<&'static str> {
    match url?.host()? {
        // Of schemes that the parser does not know, it leaves the host as it is.
        Host::Domain(name) => host(name),
        Host::Ipv4(address) => v4(address),
        Host::Ipv6(address) => v6(address),
    }
}

/// The hosts that others read: behind each `@`, up to the next `/`, and past `?`, `#` and `\`.
fn other_readings(text: &str, is_url: bool) -> Option<&'static str> {
    let begin = memchr::memmem::find(text.as_bytes(), b"//").map_or(0, |at| at + 2);
    let rest = text.get(begin..)?;
    let authority = rest.split('/').next()?;
    if !authority.contains(['@', '\\', '#', '?', '\t', '\n', '\r', ' ']) {
        // Only one reading: the parser's, or none because there is no host that it takes.
        let looks_numeric = authority.starts_with(|letter: char| letter.is_ascii_digit() || letter == '[');
        return (!is_url && looks_numeric).then_some(MALFORMED);
    }
    let parts = authority.split(['@', '\\', '#', '?']);
    // Before the first mark stands the host, or a user.
    let skipped = usize::from(authority.contains('@'));
    for (index, part) in parts.enumerate().skip(skipped) {
        if index >= READINGS_MAX {
            return Some(MALFORMED);
        }
        // A word that is no host is a password, a path or a query.
        let name = part.split_once(':').map_or(part, |(name, _)| name);
        let is_host = name.contains('.')
            || name.eq_ignore_ascii_case("localhost")
            || part.starts_with('[')
            || is_long_number(name);
        if let Some(what) = is_host.then(|| host(if part.starts_with('[') { part } else { name })).flatten() {
            return Some(what);
        }
    }
    None
}

/// An address as one number; a short one is more likely a number of something.
fn is_long_number(name: &str) -> bool {
    match name.strip_prefix("0x").or_else(|| name.strip_prefix("0X")) {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => name.len() >= 8 && name.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Judges a host as it is written.
fn host(text: &str) -> Option<&'static str> {
    let text = match text.strip_prefix('[') {
        Some(rest) => text.get(..rest.find(']')? + 2)?,
        None => text,
    };
    match Host::parse(text).ok()? {
        Host::Ipv4(address) => v4(address),
        Host::Ipv6(address) => v6(address),
        Host::Domain(name) => domain(&name),
    }
}

fn domain(name: &str) -> Option<&'static str> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let ends_with =
        |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if ends_with("localhost") || NAMES_OF_LOOPBACK.iter().any(|suffix| ends_with(suffix)) {
        return Some(LOOPBACK);
    }
    // A name without a dot is one of the network that the server is in.
    if !name.contains('.') || SUFFIXES_INTERNAL.iter().any(|suffix| ends_with(suffix)) {
        return Some(INTERNAL);
    }
    let said = NAMES_OF_ADDRESSES.iter().find(|suffix| ends_with(suffix))?;
    said_address(name.strip_suffix(said)?).and_then(v4)
}

/// The address that a name says: `10.0.0.1.`, `app-10-0-0-1.`, `0a000001.`.
fn said_address(name: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = name.split(['.', '-']).filter(|part| !part.is_empty()).collect();
    let dotted = parts.windows(4).find_map(|four| four.join(".").parse().ok());
    let hexadecimal = || {
        let is_address = |part: &&&str| part.len() == 8;
        let digits = parts.iter().rev().find(is_address)?;
        u32::from_str_radix(digits, 16).ok().map(Ipv4Addr::from)
    };
    dotted.or_else(hexadecimal)
}

fn v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [127, ..] | [0, ..] => Some(LOOPBACK),
        [169, 254, ..] => Some(LINK_LOCAL),
        // Where clouds answer for themselves: Azure, Alibaba, Oracle.
        [168, 63, 129, 16] | [100, 100, 100, 200] | [192, 0, 0, 192] => Some(LINK_LOCAL),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Some(PRIVATE),
        [192, 0, 0, _] | [198, 18..=19, ..] | [224..=255, ..] => Some(RESERVED),
        _ => None,
    }
}

fn v6(address: Ipv6Addr) -> Option<&'static str> {
    let low = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Some(LOOPBACK),
        // An address of IPv4, as it is mapped, translated or once was compatible.
        [0, 0, 0, 0, 0, 0xffff, a, b] | [0, 0, 0, 0, 0xffff, 0, a, b] | [0, 0, 0, 0, 0, 0, a, b] => {
            v4(low(a, b))
        }
        [0x64, 0xff9b, 0, 0, 0, 0, a, b] => v4(low(a, b)),
        [0x64, 0xff9b, 1, ..] => Some(PRIVATE),
        // 6to4 has it in front, Teredo turned over at the end.
        [0x2002, a, b, ..] => v4(low(a, b)),
        [0x2001, 0, _, _, _, _, a, b] => v4(low(!a, !b)),
        [0xfe80..=0xfebf, ..] => Some(LINK_LOCAL),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Some(PRIVATE),
        [0xff00..=0xffff, ..] => Some(RESERVED),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
