//! Broken cores, to show that each check fires.

/// One way in which the nodes are broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// The origin drops one job in fifty on submission and says that it took it.
    LoseJobs,
    /// One report in fifty reaches the client twice.
    ReportTwice,
    /// Outcomes are mixed up: one in fifty is reported for another job.
    MixOutcomes,
    /// One outcome in fifty never reaches the origin, and the lease is kept up all the same.
    KeepOutcomes,
    /// Nodes run one job more than they have slots.
    ExtraSlot,
    /// Kills are not carried out.
    IgnoreKills,
    /// The second origin's requests for slots go unheard.
    StarveOne,
    /// Electors grant everybody everything.
    GrantAll,
    /// Nodes forget the last term over a restart, and everybody restarts.
    ForgetTerms,
    /// Broadcasts are lost and nobody compares.
    NeverCompare,
}
