//! The machine that a run was made on, without which no figure means anything.
//!
//! What always holds: what cannot be read is said to be unknown.

use std::fs;

/// What is said about a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Its clock in MHz as the kernel sees it, rounded.
    pub processor_mhz: u64,
    /// Cores that the system shows.
    pub core_count: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// Reads it from `/proc`.
    #[must_use]
    pub fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let meminfo = read("/proc/meminfo");
        let kernel = read("/proc/sys/kernel/osrelease");
        Self {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            processor_mhz: number(field(&cpuinfo, "cpu MHz")),
            core_count: cpuinfo.lines().filter(|line| line.starts_with("processor")).count() as u64,
            memory_mib: number(field(&meminfo, "MemTotal")) / 1_024,
            kernel: if kernel.is_empty() { "unknown".to_owned() } else { kernel.trim().to_owned() },
        }
    }

    /// One line for people.
    #[must_use]
    pub fn describe(&self) -> String {
        format!(
            "{} at {} MHz, {} cores, {} MiB, Linux {}",
            self.processor, self.processor_mhz, self.core_count, self.memory_mib, self.kernel
        )
    }
}

/// The value of the first line `NAME: VALUE`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The digits at the start of a value; zero without any.
fn number(value: Option<&str>) -> u64 {
    let digits: String = value.unwrap_or_default().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_name() {
        let text = "processor\t: 0\nmodel name\t: Some CPU\ncpu MHz\t\t: 2596.098\n";
        assert_eq!(field(text, "model name"), Some("Some CPU"));
        assert_eq!(number(field(text, "cpu MHz")), 2_596);
        assert_eq!(field(text, "MemTotal"), None);
        assert_eq!(number(None), 0);
    }
}
