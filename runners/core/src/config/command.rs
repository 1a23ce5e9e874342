//! The command line that follows from a program's values.

use super::{Environment, Program, Shape, ValueSpec, program::generic_variable};
use clap::{Arg, ArgAction, Command, builder::OsStringValueParser};
use std::{
    ffi::{OsStr, OsString},
    fmt::Write,
    path::{Path, PathBuf},
};

pub(crate) const CONFIG_FILE: &str = "config-file";
pub(crate) const PRINT_CONFIG: &str = "print-config";
const VALUES_HEADING: &str = "Configuration values";

/// The options that every program has, what `extend` adds, and one option for each value. The
/// values come last, since what follows `--` has to be declared after other positional arguments.
pub(crate) fn command(
    program: &Program,
    specs: &[ValueSpec],
    environment: &Environment,
    extend: impl FnOnce(Command) -> Command,
) -> Command {
    let command = Command::new(program.name)
        .bin_name(program.command_line_name())
        .about(program.about)
        .version(program.version)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .after_help(files_help(program, specs, environment))
        .arg(
            Arg::new("help")
                .short('h')
                .long("help")
                .action(ArgAction::Help)
                .help("Print this help and exit."),
        )
        .arg(
            Arg::new("version")
                .long("version")
                .action(ArgAction::Version)
                .help("Print name and version and exit."),
        )
        .arg(
            Arg::new(PRINT_CONFIG)
                .short('P')
                .long(PRINT_CONFIG)
                .action(ArgAction::SetTrue)
                .help("Print all configuration values and where they come from, and exit."),
        )
        .arg(
            Arg::new(CONFIG_FILE)
                .short('c')
                .long(CONFIG_FILE)
                .value_name("PATH")
                .value_parser(OsStringValueParser::new())
                .help("Read this configuration file alone; with `-`, read none."),
        );
    let mut command = extend(command);
    for spec in specs {
        command = command.arg(argument(program, spec, environment));
        if let Some(clearing) = spec.clearing_option() {
            command = command.arg(
                Arg::new(clearing.clone())
                    .long(clearing)
                    .action(ArgAction::SetTrue)
                    .conflicts_with(&spec.key)
                    .hide(true),
            );
        }
    }
    command
}

fn argument(program: &Program, spec: &ValueSpec, environment: &Environment) -> Arg {
    let mut argument = Arg::new(&spec.key)
        .help(value_help(program, spec, environment))
        .help_heading(VALUES_HEADING)
        .hide(spec.hidden)
        .value_name(spec.value_name)
        .value_parser(OsStringValueParser::new());
    if spec.trailing {
        return argument.last(true).num_args(0..);
    }
    argument = argument.long(&spec.key);
    if let Some(short) = spec.short {
        argument = argument.short(short);
    }
    if let Some(alias) = spec.alias {
        argument = argument.visible_alias(alias);
    }
    match spec.shape {
        Shape::Flag => argument
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("true|false")
            .value_parser(clap::builder::ValueParser::from(parse_flag)),
        Shape::Single if spec.separator.is_some() => argument.action(ArgAction::Append),
        Shape::Single => argument,
        Shape::List => argument.action(ArgAction::Append).allow_hyphen_values(true),
    }
}

/// A flag's text. Anything but the two is an error in usage, as a value for a flag always was.
fn parse_flag(text: &str) -> Result<OsString, &'static str> {
    match text {
        "true" | "false" => Ok(text.into()),
        _ => Err("expected `true` or `false`"),
    }
}

fn value_help(program: &Program, spec: &ValueSpec, environment: &Environment) -> String {
    let mut help = spec.help.clone();
    // Writing to a string cannot fail.
    if !spec.choices.is_empty() {
        let _ = write!(help, " [one of: {}]", spec.choices.join(", "));
    }
    let default = match spec.default_text(environment) {
        Some(text) => text.display().to_string(),
        None => match (spec.shape, spec.default_note) {
            (Shape::Flag, _) => "false".into(),
            (Shape::List, _) => "empty".into(),
            (Shape::Single, "") => "unset".into(),
            (Shape::Single, note) => note.into(),
        },
    };
    let _ = write!(
        help,
        " [default: {default}] [env: {}, {}]",
        program.own_variable(&spec.key),
        generic_variable(&spec.key)
    );
    help
}

fn files_help(program: &Program, specs: &[ValueSpec], environment: &Environment) -> String {
    let mut help = "A value comes from the command line, else from its first variable that is set, \
        else from the first of these configuration files that has its key (the option's long name):\n"
        .to_owned();
    for path in search_list(program, environment) {
        let _ = writeln!(help, "  {}", path.display());
    }
    if specs.iter().any(|spec| spec.clearing_option().is_some()) {
        help.push_str(
            "\n--no-KEY takes a list, a flag or an optional value back that a variable or a file set \
            (--no-broker, say).",
        );
    }
    help
}

/// The configuration files of a program, most important first.
pub(crate) fn search_list(program: &Program, environment: &Environment) -> Vec<PathBuf> {
    environment
        .config_directories()
        .iter()
        .flat_map(|directory| {
            program
                .config_subdirectories
                .iter()
                .map(move |subdirectory| directory.join(subdirectory).join("config.toml"))
        })
        .collect()
}

/// The arguments without the subcommand's name that Cargo inserts: `cargo maelstrom …` starts
/// `cargo-maelstrom maelstrom …`.
pub(crate) fn without_cargo_subcommand(
    arguments: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let program = arguments.first().and_then(|program| {
        Path::new(program)
            .file_name()?
            .to_str()?
            .strip_prefix("cargo-")
            .map(str::to_owned)
    });
    if let Some(subcommand) = program
        && arguments.get(1).map(OsString::as_os_str) == Some(OsStr::new(&subcommand))
    {
        arguments.remove(1);
    }
    arguments
}
