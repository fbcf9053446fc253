//! Where a URL leads: to the public network, or to what only a server's own network reaches.
//!
//! Always holds: a URL is read as browsers do and as RFC 3986 has it, and with every host that a lenient reader may find
//! in it; each of them must be public. Addresses count in every notation (decimal, hexadecimal, octal, shortened,
//! within IPv6). Names are judged by what they say: no name is resolved, so that a public name of a private address
//! passes, but for names that say the address.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Longest text that is taken for a URL where nothing is declared.
const UNDECLARED_BYTES_MAX: usize = 8 * 1024;
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
    let text = text.trim_matches(|letter: char| letter <= ' ');
    // Browsers pass over line breaks and tabs wherever they are.
    let joined;
    let text = match text.contains(['\t', '\n', '\r']) {
        true => {
            joined = text.replace(['\t', '\n', '\r'], "");
            &joined
        }
        false => text,
    };
    let scheme = scheme_of(text);
    if scheme.is_some_and(|scheme| SCHEMES_FORBIDDEN.iter().any(|bad| bad.eq_ignore_ascii_case(scheme))) {
        return Some(SCHEME);
    }
    hosts(text)
}

/// The same for a text of which nothing is said, where it is a URL of the web and nothing else.
pub(crate) fn forbidden_in_any(text: &str) -> Option<&'static str> {
    let scheme = scheme_of(text)?;
    if text.len() > UNDECLARED_BYTES_MAX || !is_web(scheme) || text.contains([' ', '\n']) {
        return None;
    }
    hosts(text)
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
    ["http", "https", "ws", "wss", "ftp"].iter().any(|known| known.eq_ignore_ascii_case(scheme))
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
    let read = url.as_ref().and_then(|url| match url.host()? {
        // Of schemes that the parser does not know, it leaves the host as it is.
        Host::Domain(name) => host(name),
        Host::Ipv4(address) => v4(address),
        Host::Ipv6(address) => v6(address),
    });
    read.or_else(|| other_readings(text, url.is_some()))
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
mod tests {
    use super::*;

    #[test]
    fn public_urls_pass() {
        for text in [
            "https://example.com/a?b=c#d",
            "http://93.184.216.34:8080/x",
            "https://ann@example.com/",
            "https://ann:secret@example.com:8443/x",
            "example.com/path",
            "https://bücher.example/ä",
            "http://[2606:2800:220:1:248:1893:25c8:1946]/",
            "https://user.github.io/?q=user@host.example",
            "s3://bucket.example/key",
            "https://www.home-depot.example/localhost",
            "https://8.8.8.8.nip.io/",
            "mailto:ann@example.com",
            "https://medium.com/@ann/a-story",
            "https://example.com?next=/@me",
            "",
        ] {
            assert_eq!(forbidden(text), None, "{text}");
        }
    }

    #[test]
    fn what_only_the_servers_network_reaches_is_found_in_every_notation() {
        for (text, what) in [
            ("http://127.0.0.1/", LOOPBACK),
            ("http://127.1/", LOOPBACK),
            ("http://2130706433/", LOOPBACK),
            ("http://0x7f000001/", LOOPBACK),
            ("http://0177.0.0.1/", LOOPBACK),
            ("http://0x7f.1/", LOOPBACK),
            ("http://%31%32%37.0.0.1/", LOOPBACK),
            ("http://１２７.０.０.１/", LOOPBACK),
            ("http://①②⑦.0.0.1/", LOOPBACK),
            ("http://[::1]/", LOOPBACK),
            ("http://[::]/", LOOPBACK),
            ("http://[::ffff:127.0.0.1]/", LOOPBACK),
            ("http://[::ffff:a9fe:a9fe]/", LINK_LOCAL),
            ("http://[0:0:0:0:0:ffff:10.0.0.1]:80/", PRIVATE),
            ("http://[64:ff9b::a00:1]/", PRIVATE),
            ("http://[2002:a00:1::]/", PRIVATE),
            ("http://[fd00:ec2::254]/latest", PRIVATE),
            ("http://[fe80::1%25eth0]/", MALFORMED),
            ("http://[fe80::1]/", LINK_LOCAL),
            ("http://0/", LOOPBACK),
            ("http://10.1.2.3/", PRIVATE),
            ("http://172.31.0.1/", PRIVATE),
            ("http://192.168.0.1/", PRIVATE),
            ("http://169.254.169.254/latest/meta-data/", LINK_LOCAL),
            ("http://2852039166/", LINK_LOCAL),
            ("http://100.100.100.200/", LINK_LOCAL),
            ("http://localhost:8080/", LOOPBACK),
            ("http://LOCALHOST./", LOOPBACK),
            ("http://metadata.google.internal/", INTERNAL),
            ("http://redis:6379/", INTERNAL),
            ("http://api.default.svc.cluster.local/", INTERNAL),
            ("http://10.0.0.1.nip.io/", PRIVATE),
            ("http://app-192-168-1-1.sslip.io/", PRIVATE),
            ("http://7f000001.nip.io/", LOOPBACK),
            ("http://localtest.me/", LOOPBACK),
            ("http://example.com@127.0.0.1/", LOOPBACK),
            ("http://example.com\\@127.0.0.1/", LOOPBACK),
            ("http://example.com#@127.0.0.1/", LOOPBACK),
            ("http://a@127.0.0.1:80@example.com/", LOOPBACK),
            ("http://example.com\\@0xac1169e0/", PRIVATE),
            ("http://example.com#@2130706433/", LOOPBACK),
            ("http:\\\\127.0.0.1/", LOOPBACK),
            ("http:127.0.0.1/", LOOPBACK),
            ("http:///127.0.0.1/", LOOPBACK),
            ("ht\ttp://127.0.0.1/", LOOPBACK),
            ("  http://127.0.0.1/", LOOPBACK),
            ("//127.0.0.1/", LOOPBACK),
            ("127.0.0.1:80/x", LOOPBACK),
            ("localhost:8080", LOOPBACK),
            ("postgres://u:p@127.1/db", LOOPBACK),
            ("file:///etc/passwd", SCHEME),
            ("FILE:/etc/passwd", SCHEME),
            ("gopher://127.0.0.1:6379/_x", SCHEME),
            ("http://224.0.0.1/", RESERVED),
            ("http://256.256.256.256/", MALFORMED),
        ] {
            assert_eq!(forbidden(text), Some(what), "{text}");
        }
    }

    #[test]
    fn where_nothing_is_declared_a_text_that_is_a_url_of_the_web_is_one() {
        assert_eq!(forbidden_in_any("http://169.254.169.254/"), Some(LINK_LOCAL));
        for text in [
            "see http://localhost:3000/",
            "file:///home/ann/x",
            "localhost",
            "a:b",
            "http://localhost/ is mine",
        ] {
            assert_eq!(forbidden_in_any(text), None, "{text}");
        }
    }

    #[test]
    fn a_url_is_read_for_policies() {
        let target = read("HTTPS://ann@Example.COM/x");
        let expected = Target {
            scheme: "https".to_owned(),
            host: "example.com".to_owned(),
            port: Some(443),
            is_private: false,
            has_user: true,
        };
        assert_eq!(target, Some(expected));
        let private = read("http://0x7f.1/").map(|target| (target.host, target.is_private));
        assert_eq!(private, Some(("127.0.0.1".to_owned(), true)));
        assert_eq!(read("http://"), None);
    }
}
