//! `HOST:PORT` of a process that is dialled with TLS.
//!
//! Always holds: a text that is read is given back as it is dialled, without a scheme.

use crate::failure::Failure;

/// Reads an address, with `https://` before it or not; a failure names what it is of, and the flag that says it.
pub(crate) fn host_and_port(what: &str, flag: &str, text: &str) -> Result<String, Failure> {
    let next = format!("name it as HOST:PORT, such as {flag} cp-1.example.com:8081");
    let bare = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    if text.starts_with("http://") {
        return Err(Failure::usage(
            format!("{what} {text:?} is without TLS, and a certificate needs it"),
            next,
        ));
    }
    let port = bare.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let is_address =
        port.is_some() && !bare.contains('/') && url::Url::parse(&format!("https://{bare}")).is_ok();
    if is_address {
        Ok(bare.to_owned())
    } else {
        Err(Failure::usage(format!("{what} {text:?} is not HOST:PORT"), next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_tls_is_a_host_and_a_port() {
        let read = |text: &str| host_and_port("control plane", "--control-plane", text).ok();
        assert_eq!(read("cp-1.example.com:8081").as_deref(), Some("cp-1.example.com:8081"));
        assert_eq!(read("https://10.0.0.1:8081/").as_deref(), Some("10.0.0.1:8081"));
        assert_eq!(read("[fd00::1]:8081").as_deref(), Some("[fd00::1]:8081"));
        for text in ["http://10.0.0.1:8081", "cp-1", "cp-1:port", "cp-1:8081/x", "", "fd00::1"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
