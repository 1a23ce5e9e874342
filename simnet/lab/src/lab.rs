//! The lab as a whole.

use crate::{
    Capture, Command, Direction, Host, LabError, Shape, Signal,
    groups::Groups,
    keeper::Keeper,
    netlink::{Interface, Netlink},
    network::{self, GATEWAY, MOST_HOSTS, Network},
};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

/// How to start a lab.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// Hosts, from 1 to [`MOST_HOSTS`].
    pub hosts: u8,
    /// Tells hosts of a gateway that does not exist, so that packets to the world outside show on
    /// the lab's wires instead of being refused where they are sent.
    pub gateway: bool,
    /// Where the lab makes its directory. `None`: the system's directory for temporary files.
    pub parent: Option<PathBuf>,
    /// Whether the lab's directory stays at the end.
    pub keep: bool,
}

impl LabConfig {
    /// So many hosts, nothing special.
    pub fn new(hosts: u8) -> Self {
        Self {
            hosts,
            gateway: false,
            parent: None,
            keep: false,
        }
    }
}

/// Hosts on one network. Everything in them ends when this is dropped or the process that started
/// it ends, however that happens.
#[derive(Debug)]
pub struct Lab {
    // Relays end before the interfaces that they work on.
    network: Mutex<Network>,
    hosts: Vec<Arc<Host>>,
    keeper: Keeper,
    directory: PathBuf,
    gateway: bool,
}

impl Lab {
    /// Starts hosts that reach each other and nothing else.
    ///
    /// # Errors
    ///
    /// [`LabError::Unsupported`] where the kernel refuses what a lab is made of.
    pub fn start(config: &LabConfig) -> Result<Self, LabError> {
        if config.hosts == 0 || config.hosts > MOST_HOSTS {
            return Err(LabError::NoHost(config.hosts, MOST_HOSTS));
        }
        // Short: paths of Unix sockets below it have at most 107 bytes.
        let parent = config.parent.clone().unwrap_or_else(std::env::temp_dir);
        let failed = || LabError::step(format!("making a directory in {}", parent.display()));
        let parent_path = parent.canonicalize().map_err(failed())?;
        let directory = tempfile::Builder::new()
            .prefix("lab-")
            .tempdir_in(parent_path)
            .map_err(failed())?;
        let remove = (!config.keep).then(|| directory.path().to_owned());
        let name = directory.path().file_name().unwrap_or_default();
        let groups = Groups::make(&name.to_string_lossy(), config.hosts);
        let (keeper, netlink) = Keeper::start(remove, &groups).inspect_err(|_| groups.remove())?;
        // From here on the keeper removes it.
        let directory = directory.keep();
        let hosts = (1..=config.hosts)
            .map(|number| Host::new(number, &directory, groups.of(number)).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let lab = Self {
            network: Mutex::new(Network::new(Netlink::new(netlink))?),
            hosts,
            keeper,
            directory,
            gateway: config.gateway,
        };
        for number in 1..=config.hosts {
            lab.boot(number)?;
        }
        Ok(lab)
    }

    /// The lab's directory, with one directory a host.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All hosts, in order.
    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// A host by its number.
    ///
    /// # Errors
    ///
    /// There is no such host.
    pub fn host(&self, number: u8) -> Result<&Arc<Host>, LabError> {
        let index = usize::from(number).checked_sub(1);
        index
            .and_then(|index| self.hosts.get(index))
            .ok_or(LabError::NoHost(number, self.hosts.len() as u8))
    }

    /// A program to run on a host.
    ///
    /// # Panics
    ///
    /// There is no such host: for tests, which know.
    #[track_caller]
    pub fn on(&self, host: u8, program: impl Into<OsString>) -> Command {
        match self.host(host) {
            Ok(host) => host.command(program),
            Err(error) => panic!("{error}"),
        }
    }

    /// Starts a host that was killed. Its files are as they were.
    ///
    /// # Errors
    ///
    /// It is up, or the kernel refuses.
    pub fn boot(&self, host: u8) -> Result<(), LabError> {
        let mut network = self.network();
        let name = Network::port_name(host);
        let port = Interface {
            index: network::port_index(host),
            name: &name,
            hardware: None,
        };
        let gateway = self.gateway.then_some(GATEWAY);
        self.host(host)?
            .boot(&self.keeper, &network.netlink, &port, gateway)?;
        network.host_up(&self.keeper, host)
    }

    /// Kills every process of a host at once, as when its plug is pulled. They have ended when
    /// this returns, and its interface has gone.
    ///
    /// # Errors
    ///
    /// It is down already.
    pub fn kill(&self, host: u8) -> Result<(), LabError> {
        self.host(host)?.kill()?;
        self.network().host_down(host);
        Ok(())
    }

    /// Stops every process of a host where it is. Its kernel goes on acknowledging packets; use
    /// [`Self::shape`] with [`Shape::silent`] as well for a machine that sleeps.
    ///
    /// # Errors
    ///
    /// It is down.
    pub fn pause(&self, host: u8) -> Result<(), LabError> {
        self.host(host)?.signal_all(Signal::STOP)
    }

    /// Lets the processes of a paused host go on.
    ///
    /// # Errors
    ///
    /// It is down.
    pub fn resume(&self, host: u8) -> Result<(), LabError> {
        self.host(host)?.signal_all(Signal::CONT)
    }

    /// Pulls a host's cable: its interface loses the carrier.
    ///
    /// # Errors
    ///
    /// There is no such host, or the kernel refuses.
    pub fn cut(&self, host: u8) -> Result<(), LabError> {
        self.host(host)?;
        self.network().set_cut(host, true)
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    ///
    /// There is no such host, or the kernel refuses.
    pub fn heal(&self, host: u8) -> Result<(), LabError> {
        self.host(host)?;
        self.network().set_cut(host, false)
    }

    /// Loses all packets from one host to another, silently, and only those.
    ///
    /// # Errors
    ///
    /// There is no such host, or the kernel refuses.
    pub fn block(&self, from: u8, to: u8) -> Result<(), LabError> {
        self.set_blocked(from, to, true)
    }

    /// Undoes [`Self::block`].
    ///
    /// # Errors
    ///
    /// There is no such host, or the kernel refuses.
    pub fn unblock(&self, from: u8, to: u8) -> Result<(), LabError> {
        self.set_blocked(from, to, false)
    }

    fn set_blocked(&self, from: u8, to: u8, blocked: bool) -> Result<(), LabError> {
        self.host(from)?;
        self.host(to)?;
        self.network().set_blocked(&self.keeper, from, to, blocked)
    }

    /// Lets only hosts of one group reach each other, silently. Hosts in no group form one more.
    /// Replaces an earlier partition; no groups at all end it.
    ///
    /// # Errors
    ///
    /// There is no such host, or the kernel refuses.
    pub fn partition(&self, groups: &[&[u8]]) -> Result<(), LabError> {
        for host in groups.iter().copied().flatten() {
            self.host(*host)?;
        }
        self.network()
            .set_groups(&self.keeper, &network::groups(groups))
    }

    /// Shapes a host's link: rate, latency, loss. [`Shape::default`] undoes it. A packet on its
    /// way may be lost at the moment that shaping starts or ends.
    ///
    /// # Errors
    ///
    /// There is no such host, or the kernel refuses.
    pub fn shape(&self, host: u8, direction: Direction, shape: Shape) -> Result<(), LabError> {
        self.host(host)?;
        self.network()
            .set_shape(&self.keeper, host, direction, shape)
    }

    /// Turns multicast between hosts off or on, as many networks of offices and clouds do. IPv6
    /// needs it to find neighbours, so without it hosts reach each other by IPv4 only.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn set_multicast(&self, on: bool) -> Result<(), LabError> {
        self.network().set_multicast(&self.keeper, on)
    }

    /// What is done to a host's link, in words. `None`: nothing.
    pub fn describe_link(&self, host: u8) -> Option<String> {
        self.network().describe(host)
    }

    /// Writes all packets between hosts to a file until the capture is finished; those of one
    /// host if it is given.
    ///
    /// # Errors
    ///
    /// The file cannot be made, there is no such host or it is down, or the kernel refuses.
    pub fn capture(&self, file: &Path, host: Option<u8>) -> Result<Capture, LabError> {
        if let Some(host) = host
            && !self.host(host)?.is_up()
        {
            return Err(LabError::Down(host));
        }
        Capture::start(self.keeper.packet_socket()?, file, host)
    }

    /// Ends everything on every host, and waits until it has ended. Nothing but dropping the lab
    /// makes sense afterwards. Dropping it does this by itself; this is for a lab that is shared.
    pub fn stop(&self) {
        for host in &self.hosts {
            // One that is down already is as it should be.
            let _ = self.kill(host.number());
        }
        self.keeper.stop();
    }

    fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(|e| e.into_inner())
    }
}
