//! Whose clients are asked for certificates in the handshake of TLS: some react to the mere question.
//!
//! Always holds: clients of a host that only tenants without authorities call theirs (`public_url`) are not asked, whatever
//! other tenants want; those of a host that a tenant with authorities calls its own are. A tenant with authorities that names
//! no host has clients of all hosts asked that are nobody else's. Nothing is refused here.

use rpds::HashTrieMapSync;

use crate::config::tenant::Tenant;

/// Tenants by the host that they name, counted.
#[derive(Clone, Default)]
pub(crate) struct Asking {
    /// Of those that have authorities.
    certified: HashTrieMapSync<Option<String>, usize>,
    /// Of those that have none, and name a host.
    others: HashTrieMapSync<String, usize>,
}

impl Asking {
    /// Counts a tenant.
    pub(super) fn put(&mut self, tenant: &Tenant) {
        self.count(!tenant.authorities.is_empty(), tenant.public_host.clone(), |count| count + 1);
    }

    /// Takes back that a tenant was counted.
    pub(super) fn remove(&mut self, tenant: &Tenant) {
        self.count(!tenant.authorities.is_empty(), tenant.public_host.clone(), |count| {
            count.saturating_sub(1)
        });
    }

    fn count(&mut self, is_certified: bool, host: Option<String>, change: impl Fn(usize) -> usize) {
        match (is_certified, host) {
            (true, host) => counted(&mut self.certified, host, change),
            (false, Some(host)) => counted(&mut self.others, host, change),
            (false, None) => {}
        }
    }

    /// Whether nobody is asked, wherever he connects to.
    pub(crate) fn is_nobody(&self) -> bool {
        self.certified.is_empty()
    }

    /// Whether a client is asked that connects to this host; `None`: it names none, as where it has an address only.
    pub(crate) fn asks(&self, host: Option<&str>) -> bool {
        let Some(host) = host.map(str::to_ascii_lowercase) else { return !self.is_nobody() };
        let is_others = self.others.contains_key(&host);
        self.certified.contains_key(&Some(host)) || (self.certified.contains_key(&None) && !is_others)
    }
}

fn counted<K: std::hash::Hash + Eq>(
    counts: &mut HashTrieMapSync<K, usize>,
    key: K,
    change: impl Fn(usize) -> usize,
) {
    match change(counts.get(&key).copied().unwrap_or(0)) {
        0 => {
            counts.remove_mut(&key);
        }
        count => counts.insert_mut(key, count),
    }
}

/// The host of a URL, as a handshake names it; `None`: it is an address, which handshakes do not name.
pub(super) fn host_of(url: &str) -> Option<String> {
    Some(url::Url::parse(url).ok()?.domain()?.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_tenants_without_authorities_are_not_asked_at_their_own_hosts() {
        let mut asking = Asking::default();
        let mut count = |is_certified, host: Option<&str>, by: isize| {
            asking.count(is_certified, host.map(str::to_owned), |count| count.saturating_add_signed(by));
            let asks = |host| asking.asks(host);
            (asks(Some("mine.example")), asks(Some("Other.example")), asks(Some("x.example")), asks(None))
        };
        assert_eq!(count(false, Some("other.example"), 1), (false, false, false, false));
        assert_eq!(count(true, Some("mine.example"), 1), (true, false, false, true));
        assert_eq!(count(true, None, 1), (true, false, true, true));
        assert_eq!(count(true, Some("other.example"), 1), (true, true, true, true), "both have the host");
        assert_eq!(count(true, Some("other.example"), -1), (true, false, true, true));
        assert_eq!(count(true, None, -1), (true, false, false, true));
        assert_eq!(count(true, Some("mine.example"), 1), (true, false, false, true));
        assert_eq!(count(true, Some("mine.example"), -1), (true, false, false, true), "one is left");
        assert_eq!(count(true, Some("mine.example"), -1), (false, false, false, false));
        assert_eq!(host_of("https://MCP.example.com:8443").as_deref(), Some("mcp.example.com"));
        assert_eq!(host_of("https://10.0.0.1"), None);
    }
}
