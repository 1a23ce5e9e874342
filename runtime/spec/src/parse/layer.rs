use super::ParseOptions;
use crate::{
    Fields, LayerSpec, Node, PrefixOptions, Problem, SymlinkSpec, expand_template, value::suggest,
};
use std::path::PathBuf;

const KINDS: [&str; 10] = [
    "tar",
    "glob",
    "paths",
    "trees",
    "programs",
    "stubs",
    "symlinks",
    "shared_library_dependencies",
    "shared-library-dependencies",
    "command",
];

const PREFIX_OPTIONS: [&str; 4] = [
    "follow_symlinks",
    "canonicalize",
    "strip_prefix",
    "prepend_prefix",
];

pub(super) fn parse_layer(node: &Node, options: ParseOptions<'_>) -> Result<LayerSpec, Problem> {
    let fields = Fields::new(node, "a layer")?;
    let mut kinds = KINDS
        .iter()
        .filter_map(|kind| Some((*kind, fields.get(kind)?)));
    let Some((kind, entry)) = kinds.next() else {
        return Err(no_kind(node)?);
    };
    if let Some((other, entry)) = kinds.next() {
        return Err(Problem::new(
            entry.key_span.clone(),
            format!("a layer is of one kind, this one has both `{kind}` and `{other}`"),
        )
        .with_help("write two layers"));
    }
    let value = &entry.value;
    let text = |node: &Node| text(node, options);
    let path = |node: &Node| text(node).map(PathBuf::from);
    let allow = |more: &[&str]| fields.allow_only(&[&[kind], more]);
    match kind {
        "tar" => {
            allow(&[])?;
            Ok(LayerSpec::Tar { path: path(value)? })
        }
        "glob" => {
            allow(&PREFIX_OPTIONS)?;
            Ok(LayerSpec::Glob {
                glob: text(value)?,
                prefix_options: prefix_options(&fields)?,
            })
        }
        "paths" => {
            allow(&PREFIX_OPTIONS)?;
            Ok(LayerSpec::Paths {
                paths: value.list(path)?,
                prefix_options: prefix_options(&fields)?,
            })
        }
        "trees" => {
            allow(&PREFIX_OPTIONS)?;
            Ok(LayerSpec::Trees {
                trees: value.list(path)?,
                prefix_options: prefix_options(&fields)?,
            })
        }
        "programs" => {
            allow(&[])?;
            Ok(LayerSpec::Programs {
                programs: value.list(text)?,
            })
        }
        "stubs" => {
            allow(&[])?;
            Ok(LayerSpec::Stubs {
                stubs: value.list(text)?,
            })
        }
        "symlinks" => {
            allow(&[])?;
            let symlinks = value.list(|node| {
                let fields = Fields::new(node, "a symlink")?;
                fields.allow_only(&[&["link", "target"]])?;
                Ok(SymlinkSpec {
                    link: path(fields.require("link")?)?,
                    target: path(fields.require("target")?)?,
                })
            })?;
            Ok(LayerSpec::Symlinks { symlinks })
        }
        "command" => {
            allow(&[])?;
            parse_command(value)
        }
        _ => {
            allow(&PREFIX_OPTIONS)?;
            Ok(LayerSpec::SharedLibraryDependencies {
                binary_paths: value.list(path)?,
                prefix_options: prefix_options(&fields)?,
            })
        }
    }
}

/// The problem of a layer without a key that decides its kind.
fn no_kind(node: &Node) -> Result<Problem, Problem> {
    // The last kind is only another spelling and need not be suggested, nor does the planned one.
    let suggested = &KINDS[..8];
    let foreign = node
        .table()?
        .iter()
        .find(|entry| !PREFIX_OPTIONS.contains(&&*entry.key) && !KINDS.contains(&&*entry.key));
    Ok(match foreign {
        Some(entry) => Problem::new(
            entry.key_span.clone(),
            format!("unknown kind of layer `{}`", entry.key),
        )
        .with_help(suggest(&entry.key, suggested, "the kinds are")),
        None => Problem::new(node.span.clone(), "a layer without a kind").with_help(suggest(
            "",
            suggested,
            "it needs one of",
        )),
    })
}

fn text(node: &Node, options: ParseOptions<'_>) -> Result<String, Problem> {
    let text = node.string()?;
    let Some(variables) = options.template_variables else {
        return Ok(text.to_owned());
    };
    expand_template(text, variables).map_err(|error| {
        let known: Vec<&str> = variables.keys().map(String::as_str).collect();
        let advice = if known.is_empty() {
            "there are no template variables here".to_owned()
        } else {
            suggest(&error.name, &known, "known are")
        };
        Problem::new(node.span.clone(), error.to_string()).with_help(format!(
            "{advice} (a literal `<{}>` is written `<<{}>`)",
            error.name, error.name
        ))
    })
}

fn prefix_options(fields: &Fields<'_>) -> Result<PrefixOptions, Problem> {
    let flag = |key| Ok(fields.optional(key, Node::boolean)?.unwrap_or(false));
    Ok(PrefixOptions {
        follow_symlinks: flag("follow_symlinks")?,
        canonicalize: flag("canonicalize")?,
        strip_prefix: fields.optional("strip_prefix", Node::path)?,
        prepend_prefix: fields.optional("prepend_prefix", Node::path)?,
    })
}

fn parse_command(node: &Node) -> Result<LayerSpec, Problem> {
    let (program, arguments) = match node.array() {
        Err(_) => (node, &[][..]),
        Ok([program, arguments @ ..]) => (program, arguments),
        Ok([]) => {
            return Err(Problem::new(
                node.span.clone(),
                "a command needs at least a program",
            ));
        }
    };
    Ok(LayerSpec::Command {
        program: program.string()?.to_owned(),
        arguments: arguments
            .iter()
            .map(|argument| argument.string().map(str::to_owned))
            .collect::<Result<_, _>>()?,
    })
}
