//! What a Python image lacks of a project's `test-requirements.txt`, as a layer.

use crate::client::Client;
use maelstrom_spec::{
    ContainerParent, ContainerSpec, Device, EnvironmentElement, ImageUri, JobError, LayerSpec,
    Mount, Network,
};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

/// Where the file is while it is installed.
const INSIDE: &str = "/maelstrom/test-requirements.txt";

/// What is run in the image. Modules are compiled so that they need not be compared with their
/// sources: the times of files are not kept in layers, and the file system cannot be written to
/// by tests.
const SCRIPT: &str = "\
import compileall, py_compile, subprocess, sys, sysconfig
code = subprocess.call([
    sys.executable, '-m', 'pip', 'install', '--quiet', '--no-compile', '--no-cache-dir',
    '--disable-pip-version-check', '--no-input', '--requirement', sys.argv[1],
])
if code:
    sys.exit(code)
for path in sorted({sysconfig.get_path(name) for name in ('stdlib', 'purelib', 'platlib')}):
    compileall.compile_dir(
        path, quiet=2, workers=0,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
";

/// Variables of the client that say where pip gets packages from.
const PASSED_ON: [&str; 12] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_NO_INDEX",
    "PIP_TRUSTED_HOST",
    "PIP_PROXY",
    "PIP_TIMEOUT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Variables of the client that name a file of certificates by which pip knows whom to trust.
const CERTIFICATES: [&str; 3] = ["PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"];

/// Whether an image is one whose containers get the project's requirements: a registry's image
/// of which the last part of the name is `python`.
pub fn is_python_image(name: &str) -> bool {
    match name.parse() {
        Ok(ImageUri::Registry(reference)) => {
            reference.repository.rsplit('/').next() == Some("python")
        }
        _ => false,
    }
}

/// Installs the packages that a requirements file names on top of an image, and compiles the
/// image's modules and theirs. Returns a layer to be put above all others of containers that
/// have this image as their parent. It is made once for each image and text of the file.
///
/// It runs on this machine with its network, and with its names of hosts. Of the environment,
/// what says where pip gets packages from (`PIP_INDEX_URL` and its like, and proxies) is
/// passed on, and so are files of certificates that it names.
///
/// # Errors
///
/// [`JobError::Remote`] says that the file cannot be read, or what pip wrote.
pub fn install(
    client: &Client,
    image: &ContainerParent,
    requirements: &Path,
) -> Result<LayerSpec, JobError> {
    let failed = |error: &dyn std::fmt::Display| {
        JobError::Remote(format!("installing {}: {error}", requirements.display()))
    };
    let text = fs::read(requirements).map_err(|error| failed(&error))?;
    let file = client
        .store()
        .layer()
        .add_bytes(INSIDE, text, 0o444)
        .finish()
        .map_err(|error| failed(&error))?;
    let mut stubs: Vec<String> = [
        "/{dev,dev/shm,proc,tmp}/",
        "/dev/{null,random,urandom,zero}",
        "/etc/{hosts,resolv.conf}",
    ]
    .map(String::from)
    .into();
    let mut environment = environment();
    let mut mounts = mounts();
    for (name, path) in certificates() {
        let inside = format!("/maelstrom/{name}");
        mounts.push(Mount::Bind {
            mount_point: inside.clone().into(),
            local_path: path,
            read_only: true,
        });
        stubs.push(inside.clone());
        environment.vars.insert(name.into(), inside);
    }
    let container = ContainerSpec {
        parent: Some(image.clone()),
        layers: vec![
            LayerSpec::Built {
                id: *file.as_bytes(),
            },
            LayerSpec::Stubs { stubs },
        ],
        environment: vec![environment],
        mounts,
        network: Some(Network::Local),
        user: Some(0),
        group: Some(0),
        ..ContainerSpec::default()
    };
    let arguments = ["-c", SCRIPT, INSIDE].map(String::from);
    let id = client
        .command_layer(&container, "python", &arguments)
        .map_err(|error| match error {
            JobError::Remote(message) => failed(&message),
            other => other,
        })?;
    Ok(LayerSpec::Built { id: *id.as_bytes() })
}

/// The files of certificates that there are, by the variables that name them.
fn certificates() -> Vec<(&'static str, PathBuf)> {
    let named = |name| Some((name, PathBuf::from(env::var_os(name)?)));
    CERTIFICATES
        .into_iter()
        .filter_map(named)
        .filter(|(_, path)| path.is_absolute() && path.is_file())
        .collect()
}

fn environment() -> EnvironmentElement {
    let mut vars: BTreeMap<String, String> = PASSED_ON
        .iter()
        .filter(|name| env::var_os(name).is_some())
        .map(|name| (name.to_string(), format!("$env{{{name}}}")))
        .collect();
    // Directories of this machine are not there.
    let links = env::var("PIP_FIND_LINKS").unwrap_or_default();
    let links: Vec<&str> = links
        .split_whitespace()
        .filter(|link| link.contains("://"))
        .collect();
    if !links.is_empty() {
        vars.insert("PIP_FIND_LINKS".into(), links.join(" ").replace('$', "$$"));
    }
    vars.insert("PIP_ROOT_USER_ACTION".into(), "ignore".into());
    vars.insert("HOME".into(), "/tmp".into());
    EnvironmentElement { vars, extend: true }
}

fn mounts() -> Vec<Mount> {
    let bind = |path: &str| Mount::Bind {
        mount_point: path.into(),
        local_path: path.into(),
        read_only: true,
    };
    let mut mounts = vec![
        Mount::Proc {
            mount_point: "/proc".into(),
        },
        Mount::Tmp {
            mount_point: "/tmp".into(),
        },
        Mount::Devices {
            // Compiling with several processes takes semaphores, which are files in `/dev/shm`.
            devices: vec![
                Device::Null,
                Device::Random,
                Device::Shm,
                Device::Urandom,
                Device::Zero,
            ],
        },
    ];
    // How this machine finds hosts.
    mounts.extend(
        ["/etc/resolv.conf", "/etc/hosts"]
            .into_iter()
            .filter(|path| Path::new(path).exists())
            .map(bind),
    );
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_images_are_python() {
        for name in [
            "docker://python",
            "docker://python:3.12-slim",
            "docker://ghcr.io/acme/python@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ] {
            assert!(is_python_image(name), "{name}");
        }
        for name in [
            "docker://pythonic",
            "docker://python/tool",
            "oci:python",
            "python",
        ] {
            assert!(!is_python_image(name), "{name}");
        }
    }
}
