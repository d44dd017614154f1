//! The guards that keep the promises. Without each one of them some history must break a promise; otherwise the
//! simulator could not show that the guard is needed.
//!
//! The world takes a guard out: it tells the nodes something false, or forgets something for them. The nodes' code
//! stays the real one.

use crate::weather::Weather;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// The store refuses statements of an older epoch.
    EpochInTheStore,
    /// A node refuses a leader of an older epoch than one that it has seen.
    EpochAtTheNode,
    /// A node checks its lease right before it starts a process.
    LeaseAtTheStart,
    /// A lease never lasts longer than the authority of its leader.
    LeaseWithinAuthority,
    /// A node tells its holdings only after the Welcome of the present epoch.
    WelcomeBeforeHoldings,
    /// Before a leader reassigns a run it looks for the run's log row.
    LogRowReadAgain,
    /// Before a leader gives a run to another node, the journal names that node.
    JournalBeforeRegiving,
    /// The seconds in which nobody led are journaled under their own ticks.
    GapUnderItsOwnTicks,
    /// The parts of a tick are written from the last to the first.
    PartZeroLast,
    /// Before a change is answered, runs of an older version are taken back from their nodes.
    VersionAtTheStart,
    /// A daemon knows which runs the former daemon had begun.
    Marks,
    /// The daemons after that one know these runs, too.
    MarksOfAllIncarnations,
    /// After a reboot a daemon does not rely on its marks.
    BootId,
    /// After a reboot a daemon says that it may have forgotten runs.
    Forgetting,
    /// At the lease's end the guardian ends mutex runs.
    GuardiansDeadline,
    /// A change is stored after every tick before it.
    TicksBeforeChanges,
    /// A node wakes for everything that it waits for, though nobody speaks to it.
    EveryTimerWakes,
    /// A node without Consul learns from the store who leads.
    LeaderByTheStore,
}

impl Guard {
    pub const ALL: [Guard; 18] = [
        Guard::EpochInTheStore,
        Guard::EpochAtTheNode,
        Guard::LeaseAtTheStart,
        Guard::LeaseWithinAuthority,
        Guard::WelcomeBeforeHoldings,
        Guard::LogRowReadAgain,
        Guard::JournalBeforeRegiving,
        Guard::GapUnderItsOwnTicks,
        Guard::PartZeroLast,
        Guard::VersionAtTheStart,
        Guard::Marks,
        Guard::MarksOfAllIncarnations,
        Guard::BootId,
        Guard::Forgetting,
        Guard::GuardiansDeadline,
        Guard::TicksBeforeChanges,
        Guard::EveryTimerWakes,
        Guard::LeaderByTheStore,
    ];

    /// The weather in which the lack of the guard shows soonest.
    pub fn weather(self) -> Weather {
        match self {
            Guard::EpochAtTheNode => Weather::OldNews,
            Guard::LeaseWithinAuthority | Guard::LeaseAtTheStart | Guard::GuardiansDeadline => Weather::Groups,
            Guard::GapUnderItsOwnTicks | Guard::PartZeroLast | Guard::JournalBeforeRegiving => Weather::SlowStore,
            Guard::MarksOfAllIncarnations => Weather::Crashes,
            Guard::VersionAtTheStart | Guard::TicksBeforeChanges => Weather::Changes,
            Guard::EveryTimerWakes => Weather::Alone,
            Guard::LeaderByTheStore => Weather::Agents,
            _ => Weather::Mixed,
        }
    }
}
