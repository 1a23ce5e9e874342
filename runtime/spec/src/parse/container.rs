use super::{ParseOptions, layer::parse_layer, mount::parse_mount};
use crate::{
    ContainerParent, ContainerSpec, ContainerUse, EnvironmentElement, Fields, ImageUse, LayerSpec,
    Mount, Network, Node, Problem, Value, value::choose,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::PathBuf,
};

/// The keys of a container.
pub const CONTAINER_KEYS: [&str; 13] = [
    "image",
    "parent",
    "layers",
    "added_layers",
    "environment",
    "added_environment",
    "mounts",
    "added_mounts",
    "network",
    "enable_writable_file_system",
    "working_directory",
    "user",
    "group",
];

/// The keys of a container as they stand in the text, before the rules are applied that say what
/// they mean together.
///
/// Named containers and jobs make a container of them ([`ContainerFields::into_container`]), and
/// so do directives that name a parent; directives without one change a candidate
/// ([`ContainerFields::apply_to`]).
#[derive(Clone, Debug, Default)]
pub struct ContainerFields {
    parent: Option<Parent>,
    layers: Vector<LayerSpec>,
    environment: Vector<EnvironmentElement>,
    mounts: Vector<Mount>,
    network: Option<Keyed<Network>>,
    enable_writable_file_system: Option<Keyed<bool>>,
    working_directory: Option<Keyed<PathBuf>>,
    user: Option<Keyed<u32>>,
    group: Option<Keyed<u32>>,
}

/// A value, and where its key is.
#[derive(Clone, Debug)]
struct Keyed<T> {
    value: T,
    key_span: Range<usize>,
}

/// What a container sets for a member that is a list.
#[derive(Clone, Debug)]
struct Vector<T> {
    plain: Option<Keyed<Vec<T>>>,
    added: Option<Keyed<Vec<T>>>,
}

impl<T> Default for Vector<T> {
    fn default() -> Self {
        Vector {
            plain: None,
            added: None,
        }
    }
}

#[derive(Clone, Debug)]
struct Parent {
    name: String,
    name_span: Range<usize>,
    is_image: bool,
    /// In terms of containers also for an image.
    members: BTreeSet<ContainerUse>,
    /// Whether the members were listed, and not just all of them.
    is_explicit: bool,
}

impl Parent {
    const fn key(&self) -> &'static str {
        if self.is_image { "image" } else { "parent" }
    }
}

impl ContainerFields {
    /// Reads the keys of a container, which may stand among others.
    pub fn parse(fields: &Fields<'_>, options: ParseOptions<'_>) -> Result<Self, Problem> {
        let parent = match (fields.get("image"), fields.get("parent")) {
            (Some(image), Some(parent)) => {
                let second = image.key_span.start.max(parent.key_span.start);
                let entry = if parent.key_span.start == second {
                    parent
                } else {
                    image
                };
                return Err(Problem::new(
                    entry.key_span.clone(),
                    "`image` and `parent` cannot be used together",
                )
                .with_help("give the named container the image and this one the container"));
            }
            (Some(image), None) => Some(parse_parent(&image.value, true)?),
            (None, Some(parent)) => Some(parse_parent(&parent.value, false)?),
            (None, None) => None,
        };
        let layers = |node: &Node| node.list(|node| parse_layer(node, options));
        let mounts = |node: &Node| node.list(parse_mount);
        let network = |node: &Node| {
            let all = [Network::Disabled, Network::Loopback, Network::Local];
            choose(node, "network", all, |network| match network {
                Network::Disabled => "disabled",
                Network::Loopback => "loopback",
                Network::Local => "local",
            })
        };
        Ok(ContainerFields {
            parent,
            layers: vector(fields, "layers", "added_layers", layers)?,
            environment: vector(
                fields,
                "environment",
                "added_environment",
                parse_environment,
            )?,
            mounts: vector(fields, "mounts", "added_mounts", mounts)?,
            network: keyed(fields, "network", network)?,
            enable_writable_file_system: keyed(
                fields,
                "enable_writable_file_system",
                Node::boolean,
            )?,
            working_directory: keyed(fields, "working_directory", Node::path)?,
            user: keyed(fields, "user", Node::integer)?,
            group: keyed(fields, "group", Node::integer)?,
        })
    }

    /// Whether an image or a parent is named.
    pub const fn has_parent(&self) -> bool {
        self.parent.is_some()
    }

    /// Where the name of the image or parent stands.
    pub fn parent_span(&self) -> Option<Range<usize>> {
        self.parent.as_ref().map(|parent| parent.name_span.clone())
    }

    /// The container that these keys describe by themselves.
    pub fn into_container(self) -> Result<ContainerSpec, Problem> {
        use ContainerUse as Use;
        let mut parent = self.parent;
        let link = &mut parent;
        Ok(ContainerSpec {
            layers: settle_vector(self.layers, link, Use::Layers, "added_layers")?,
            environment: settle_vector(
                self.environment,
                link,
                Use::Environment,
                "added_environment",
            )?,
            mounts: settle_vector(self.mounts, link, Use::Mounts, "added_mounts")?,
            network: settle_scalar(self.network, link, Use::Network)?,
            enable_writable_file_system: settle_scalar(
                self.enable_writable_file_system,
                link,
                Use::EnableWritableFileSystem,
            )?,
            working_directory: settle_scalar(self.working_directory, link, Use::WorkingDirectory)?,
            user: settle_scalar(self.user, link, Use::User)?,
            group: settle_scalar(self.group, link, Use::Group)?,
            parent: parent.map(|parent| {
                let name = parent.name;
                if parent.is_image {
                    let members = ImageUse::ALL
                        .into_iter()
                        .filter(|member| parent.members.contains(&Use::from(*member)))
                        .collect();
                    ContainerParent::Image { name, members }
                } else {
                    let members = parent.members;
                    ContainerParent::Container { name, members }
                }
            }),
        })
    }

    /// Changes `candidate` by the looser rules of a directive without a parent: scalars overwrite,
    /// plain lists replace the candidate's own, added ones are appended, and what the candidate
    /// inherits stays.
    pub fn apply_to(&self, candidate: &mut ContainerSpec) {
        fn vector<T: Clone>(from: &Vector<T>, to: &mut Vec<T>) {
            if let Some(plain) = &from.plain {
                to.clone_from(&plain.value);
            }
            if let Some(added) = &from.added {
                to.extend(added.value.iter().cloned());
            }
        }
        fn scalar<T: Clone>(from: &Option<Keyed<T>>, to: &mut Option<T>) {
            if let Some(keyed) = from {
                *to = Some(keyed.value.clone());
            }
        }
        vector(&self.layers, &mut candidate.layers);
        vector(&self.environment, &mut candidate.environment);
        vector(&self.mounts, &mut candidate.mounts);
        scalar(&self.network, &mut candidate.network);
        scalar(
            &self.enable_writable_file_system,
            &mut candidate.enable_writable_file_system,
        );
        scalar(&self.working_directory, &mut candidate.working_directory);
        scalar(&self.user, &mut candidate.user);
        scalar(&self.group, &mut candidate.group);
    }
}

/// A named container, and where the name of its parent stands, if it has one.
pub type NamedContainer = (ContainerSpec, Option<Range<usize>>);

/// Parses a table of named containers. With each comes the place of its parent's name. Of repeated
/// names, which only JSON can have, the last wins.
pub fn parse_containers(
    node: &Node,
    options: ParseOptions<'_>,
) -> Result<BTreeMap<String, NamedContainer>, Problem> {
    let entries = node.table()?.iter();
    entries
        .map(|entry| {
            let fields = Fields::new(&entry.value, "a container")?;
            fields.allow_only(&[&CONTAINER_KEYS])?;
            let fields = ContainerFields::parse(&fields, options)?;
            let parent_span = fields.parent_span();
            Ok((entry.key.clone(), (fields.into_container()?, parent_span)))
        })
        .collect()
}

fn keyed<T>(
    fields: &Fields<'_>,
    key: &str,
    read: impl FnOnce(&Node) -> Result<T, Problem>,
) -> Result<Option<Keyed<T>>, Problem> {
    let Some(entry) = fields.get(key) else {
        return Ok(None);
    };
    Ok(Some(Keyed {
        value: read(&entry.value)?,
        key_span: entry.key_span.clone(),
    }))
}

fn vector<T>(
    fields: &Fields<'_>,
    plain: &str,
    added: &str,
    read: impl Fn(&Node) -> Result<Vec<T>, Problem>,
) -> Result<Vector<T>, Problem> {
    Ok(Vector {
        plain: keyed(fields, plain, &read)?,
        added: keyed(fields, added, &read)?,
    })
}

/// Applies the rules for a list beside a parent, and takes what is not inherited out of `use`.
fn settle_vector<T>(
    vector: Vector<T>,
    parent: &mut Option<Parent>,
    member: ContainerUse,
    added_key: &str,
) -> Result<Vec<T>, Problem> {
    let key = member.name();
    match (vector.plain, vector.added) {
        (None, None) => Ok(Vec::new()),
        (Some(_), Some(added)) => Err(Problem::new(
            added.key_span,
            format!("`{key}` and `{added_key}` cannot be used together"),
        )
        .with_help(format!("put everything into `{key}`"))),
        (Some(plain), None) => {
            if let Some(parent) = parent
                && parent.members.contains(&member)
            {
                if parent.is_explicit {
                    let link = parent.key();
                    return Err(Problem::new(
                        plain.key_span,
                        format!("`{key}` is set although the `use` of `{link}` lists \"{key}\""),
                    )
                    .with_help(format!(
                        "write `{added_key}` to add to what is inherited, or take \"{key}\" out of `use`"
                    )));
                }
                parent.members.remove(&member);
            }
            Ok(plain.value)
        }
        (None, Some(added)) => match parent {
            None => Err(Problem::new(
                added.key_span,
                format!("`{added_key}` without an `image` or a `parent` to add to"),
            )
            .with_help(format!("write `{key}`"))),
            Some(parent) if parent.members.contains(&member) => Ok(added.value),
            Some(parent) if parent.is_image && !is_image_member(member) => Err(Problem::new(
                added.key_span,
                format!("`{added_key}` beside an `image`, which has no {key} to add to"),
            )
            .with_help(format!("write `{key}`"))),
            Some(parent) => Err(Problem::new(
                added.key_span,
                format!(
                    "`{added_key}` although the `use` of `{}` does not list \"{key}\"",
                    parent.key()
                ),
            )
            .with_help(format!(
                "write `{key}` to inherit none, or add \"{key}\" to `use`"
            ))),
        },
    }
}

/// Applies the rule for a single value beside a parent, and takes it out of `use`.
fn settle_scalar<T>(
    field: Option<Keyed<T>>,
    parent: &mut Option<Parent>,
    member: ContainerUse,
) -> Result<Option<T>, Problem> {
    let Some(field) = field else {
        return Ok(None);
    };
    if let Some(parent) = parent
        && parent.members.contains(&member)
    {
        if parent.is_explicit {
            let (key, link) = (member.name(), parent.key());
            return Err(Problem::new(
                field.key_span,
                format!("`{key}` is set although the `use` of `{link}` lists \"{key}\""),
            )
            .with_help(format!("drop `{key}` here, or take \"{key}\" out of `use`")));
        }
        parent.members.remove(&member);
    }
    Ok(Some(field.value))
}

fn is_image_member(member: ContainerUse) -> bool {
    ImageUse::ALL
        .iter()
        .any(|image_member| ContainerUse::from(*image_member) == member)
}

/// Parses what `image` or `parent` is set to. Unknown keys of the table are ignored.
fn parse_parent(node: &Node, is_image: bool) -> Result<Parent, Problem> {
    let what = if is_image { "an image" } else { "a parent" };
    let is_member = |member: &ContainerUse| !is_image || is_image_member(*member);
    let all = ContainerUse::ALL.into_iter().filter(is_member);
    let (name_node, explicit) = match &node.value {
        Value::String(_) => (node, None),
        Value::Table(_) => {
            let fields = Fields::new(node, what)?;
            let explicit = fields.optional("use", |node| {
                let read = |node: &Node| {
                    choose(
                        node,
                        &format!("member of {what}"),
                        all.clone(),
                        ContainerUse::name,
                    )
                };
                Ok(node.list(read)?.into_iter().collect())
            })?;
            (fields.require("name")?, explicit)
        }
        _ => return Err(node.expected("a string, or a table with `name` and `use`")),
    };
    Ok(Parent {
        name: name_node.string()?.to_owned(),
        name_span: name_node.span.clone(),
        is_image,
        is_explicit: explicit.is_some(),
        members: explicit.unwrap_or_else(|| all.collect()),
    })
}

/// Parses an environment: a table, or a list of elements. Unknown keys of elements are ignored.
fn parse_environment(node: &Node) -> Result<Vec<EnvironmentElement>, Problem> {
    match &node.value {
        Value::Table(_) => {
            let vars = parse_vars(node)?;
            return Ok(vec![EnvironmentElement { vars, extend: true }]);
        }
        Value::Array(_) => {}
        _ => {
            return Err(
                node.expected("a table of variables, or a list of tables with `vars` and `extend`")
            );
        }
    }
    node.list(|node| {
        let fields = Fields::new(node, "an environment element")?;
        Ok(EnvironmentElement {
            vars: parse_vars(fields.require("vars")?)?,
            extend: fields.require("extend")?.boolean()?,
        })
    })
}

fn parse_vars(node: &Node) -> Result<BTreeMap<String, String>, Problem> {
    let entries = node.table()?.iter();
    entries
        .map(|entry| {
            if entry.key.contains('\0') {
                return Err(Problem::new(
                    entry.key_span.clone(),
                    "a variable's name with a NUL character cannot be used",
                ));
            }
            Ok((entry.key.clone(), entry.value.string()?.to_owned()))
        })
        .collect()
}
