//! The formats of keys: how each begins, and what follows.
//!
//! Always holds: of two prefixes of which one begins the other, both are tried. A row is taken from what the issuer
//! documents or its keys show.

/// A format.
pub(super) struct Form {
    pub(super) prefix: &'static str,
    pub(super) tail: Tail,
    /// What it is told as.
    pub(super) what: &'static str,
}

/// What follows a prefix.
#[derive(Clone, Copy)]
pub(super) enum Tail {
    /// So many letters, and then another.
    Exactly(Letters, usize),
    /// So many letters or more, with digits among them.
    AtLeast(Letters, usize),
    /// Parts of such lengths.
    Parts(Letters, &'static [usize], u8),
    Sk,
    Jwt,
    Pem,
    Credentials,
}

/// What a key is made of.
#[derive(Clone, Copy)]
pub(super) enum Letters {
    Alphanumeric,
    /// Letters of base64 for URLs.
    Url,
    Base64,
    Hexadecimal,
    Upper,
    /// With `/`, as in a path.
    Path,
}

impl Letters {
    pub(super) fn test(self) -> fn(u8) -> bool {
        match self {
            Letters::Alphanumeric => |byte| byte.is_ascii_alphanumeric(),
            Letters::Url => |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            Letters::Base64 => |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='),
            Letters::Hexadecimal => |byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'),
            Letters::Upper => |byte| byte.is_ascii_digit() || byte.is_ascii_uppercase(),
            Letters::Path => |byte| byte.is_ascii_alphanumeric() || byte == b'/',
        }
    }
}

const fn form(prefix: &'static str, tail: Tail, what: &'static str) -> Form {
    Form { prefix, tail, what }
}

use Letters::{Alphanumeric, Base64, Hexadecimal, Path, Upper, Url};
use Tail::{AtLeast, Exactly, Parts};

const GITHUB: &str = "token of GitHub";
const GITLAB: &str = "token of GitLab";
const SLACK: &str = "token of Slack";
const STRIPE: &str = "key of Stripe";
const SHOPIFY: &str = "token of Shopify";
const AUTHORIZATION: &str = "authorization";

pub(super) const FORMS: [Form; 59] = [
    form("gantry_", Parts(Hexadecimal, &[16, 64], b'_'), "key of Gantry"),
    form("AKIA", Exactly(Upper, 16), "key of AWS"),
    form("ASIA", Exactly(Upper, 16), "key of AWS"),
    form("ghp_", AtLeast(Alphanumeric, 36), GITHUB),
    form("gho_", AtLeast(Alphanumeric, 36), GITHUB),
    form("ghu_", AtLeast(Alphanumeric, 36), GITHUB),
    form("ghs_", AtLeast(Alphanumeric, 36), GITHUB),
    form("ghr_", AtLeast(Alphanumeric, 36), GITHUB),
    form("github_pat_", AtLeast(Url, 22), GITHUB),
    form("glpat-", AtLeast(Url, 20), GITLAB),
    form("gldt-", AtLeast(Url, 20), GITLAB),
    form("glptt-", AtLeast(Url, 20), GITLAB),
    form("glrt-", AtLeast(Url, 20), GITLAB),
    form("xoxa-", AtLeast(Url, 10), SLACK),
    form("xoxb-", AtLeast(Url, 10), SLACK),
    form("xoxe-", AtLeast(Url, 10), SLACK),
    form("xoxp-", AtLeast(Url, 10), SLACK),
    form("xoxr-", AtLeast(Url, 10), SLACK),
    form("xoxs-", AtLeast(Url, 10), SLACK),
    form("xapp-", AtLeast(Url, 20), SLACK),
    form("hooks.slack.com/services/", AtLeast(Path, 30), SLACK),
    form("sk-", Tail::Sk, "key of a model's provider"),
    form("hf_", AtLeast(Alphanumeric, 30), "token of Hugging Face"),
    form("sk_live_", AtLeast(Alphanumeric, 16), STRIPE),
    form("rk_live_", AtLeast(Alphanumeric, 16), STRIPE),
    form("whsec_", AtLeast(Base64, 24), STRIPE),
    form("AIza", Exactly(Url, 35), "key of Google"),
    form("GOCSPX-", Exactly(Url, 28), "key of Google"),
    form("ya29.", AtLeast(Url, 20), "token of Google"),
    form("eyJ", Tail::Jwt, "JSON Web Token"),
    form("-----BEGIN ", Tail::Pem, "private key"),
    form("AGE-SECRET-KEY-1", Exactly(Upper, 58), "private key"),
    form("npm_", Exactly(Alphanumeric, 36), "token of npm"),
    form("pypi-AgE", AtLeast(Url, 50), "token of PyPI"),
    form("rubygems_", Exactly(Hexadecimal, 48), "token of RubyGems"),
    form("dckr_pat_", AtLeast(Url, 27), "token of Docker"),
    form("dop_v1_", Exactly(Hexadecimal, 64), "token of DigitalOcean"),
    form("SG.", Parts(Url, &[22, 43], b'.'), "key of SendGrid"),
    form("shpat_", Exactly(Hexadecimal, 32), SHOPIFY),
    form("shpca_", Exactly(Hexadecimal, 32), SHOPIFY),
    form("shppa_", Exactly(Hexadecimal, 32), SHOPIFY),
    form("shpss_", Exactly(Hexadecimal, 32), SHOPIFY),
    form("hvs.", AtLeast(Url, 24), "token of Vault"),
    form("hvb.", AtLeast(Url, 24), "token of Vault"),
    form("ATATT3x", AtLeast(Url, 40), "token of Atlassian"),
    form("figd_", AtLeast(Url, 30), "token of Figma"),
    form("lin_api_", AtLeast(Alphanumeric, 32), "key of Linear"),
    form("NRAK-", Exactly(Upper, 27), "key of New Relic"),
    form("PMAK-", AtLeast(Url, 40), "key of Postman"),
    form("sq0atp-", AtLeast(Url, 22), "token of Square"),
    form("sq0csp-", AtLeast(Url, 43), "key of Square"),
    form("tskey-", AtLeast(Url, 20), "key of Tailscale"),
    form("pul-", Exactly(Hexadecimal, 40), "token of Pulumi"),
    form("AccountKey=", AtLeast(Base64, 80), "key of Azure"),
    form("Bearer ", Tail::Credentials, AUTHORIZATION),
    form("bearer ", Tail::Credentials, AUTHORIZATION),
    form("BEARER ", Tail::Credentials, AUTHORIZATION),
    form("Basic ", Tail::Credentials, AUTHORIZATION),
    form("basic ", Tail::Credentials, AUTHORIZATION),
];
