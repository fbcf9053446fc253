//! Endpoints, to and from messages.

use gantry_model::resource::{Alias, AliasTarget, Authentication, EndpointSpec, Naming};

use crate::convert::{WireError, name};
use crate::resource_v1 as wire;

impl From<&EndpointSpec> for wire::EndpointSpec {
    fn from(spec: &EndpointSpec) -> wire::EndpointSpec {
        use wire::alias::Target as To;
        let naming = match spec.naming {
            Naming::Bare => wire::Naming::Bare,
            Naming::Prefixed => wire::Naming::Prefixed,
            Naming::Aliased => wire::Naming::Aliased,
        };
        let alias = |(name, alias): (&String, &Alias)| wire::Alias {
            name: name.clone(),
            server: alias.server.to_string(),
            target: Some(match &alias.target {
                AliasTarget::Tool(tool) => To::Tool(tool.clone()),
                AliasTarget::Prompt(prompt) => To::Prompt(prompt.clone()),
            }),
        };
        wire::EndpointSpec {
            servers: spec.servers.iter().map(ToString::to_string).collect(),
            anonymous: spec.anonymous,
            naming: naming as i32,
            aliases: spec.aliases.iter().map(alias).collect(),
            // What was written before there was a choice reads so, and is written so.
            authentication: (spec.authentication != Authentication::default())
                .then(|| (&spec.authentication).into()),
        }
    }
}

impl TryFrom<&wire::EndpointSpec> for EndpointSpec {
    type Error = WireError;

    fn try_from(spec: &wire::EndpointSpec) -> Result<EndpointSpec, WireError> {
        let naming = match wire::Naming::try_from(spec.naming) {
            Ok(wire::Naming::Bare | wire::Naming::Unspecified) => Naming::Bare,
            Ok(wire::Naming::Prefixed) => Naming::Prefixed,
            Ok(wire::Naming::Aliased) => Naming::Aliased,
            Err(_) => return Err(WireError::invalid("naming", format!("{} is no naming", spec.naming))),
        };
        let servers = spec.servers.iter().map(|text| name("servers", text)).collect::<Result<_, _>>()?;
        let mut aliases = std::collections::BTreeMap::new();
        for alias in &spec.aliases {
            if aliases.insert(alias.name.clone(), target(alias)?).is_some() {
                return Err(WireError::invalid(format!("aliases.{}", alias.name), "stands twice"));
            }
        }
        let authentication = spec.authentication.as_ref().map(TryInto::try_into).transpose()?;
        let (anonymous, authentication) = (spec.anonymous, authentication.unwrap_or_default());
        Ok(EndpointSpec { servers, naming, aliases, anonymous, authentication })
    }
}

fn target(alias: &wire::Alias) -> Result<Alias, WireError> {
    use wire::alias::Target as From;
    let place = || format!("aliases.{}", alias.name);
    let server = alias.server.parse();
    let server = server.map_err(|problem| WireError::invalid(format!("{}.server", place()), problem))?;
    let target = match &alias.target {
        Some(From::Tool(tool)) => AliasTarget::Tool(tool.clone()),
        Some(From::Prompt(prompt)) => AliasTarget::Prompt(prompt.clone()),
        None => return Err(WireError::invalid(place(), "names neither a tool nor a prompt")),
    };
    Ok(Alias { server, target })
}
