//! The guards that keep the promises. With any one of them taken out some history must break a promise: otherwise the
//! simulator could not tell.
//!
//! They are taken out by this world, which lies to the nodes or forgets for them; the nodes are the real ones.

use crate::weather::Weather;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// The store refuses statements of an older epoch.
    EpochInTheStore,
    /// A node refuses a leader of an older epoch than one that it has seen.
    EpochAtTheNode,
    /// The lease is looked at right before a process is started.
    LeaseAtTheStart,
    /// A lease is never longer than what is left of its leader's authority.
    LeaseWithinAuthority,
    /// What a node holds is told after the Welcome of the present epoch, and not before.
    WelcomeBeforeHoldings,
    /// Before a run is given again its log row is looked for.
    LogRowReadAgain,
    /// Before a run is given to another node the journal says so.
    JournalBeforeRegiving,
    /// The seconds in which nobody led are journaled under their own ticks.
    GapUnderItsOwnTicks,
    /// The parts of a tick are written from the last to the first.
    PartZeroLast,
    /// A run of an older version is taken back from its node before a change is answered.
    VersionAtTheStart,
    /// What a daemon had begun is known to the next one.
    Marks,
    /// And to all that come after it.
    MarksOfAllIncarnations,
    /// After a reboot nobody can say what had begun.
    BootId,
    /// At the lease's end the guardian ends mutex runs.
    GuardiansDeadline,
    /// A change is stored after every tick before it.
    TicksBeforeChanges,
    /// Whatever a node waits for wakes it, though nobody speaks to it.
    EveryTimerWakes,
    /// A node without Consul learns from the store who leads.
    LeaderByTheStore,
}

impl Guard {
    pub const ALL: [Guard; 17] = [
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
        Guard::GuardiansDeadline,
        Guard::TicksBeforeChanges,
        Guard::EveryTimerWakes,
        Guard::LeaderByTheStore,
    ];

    /// The weather in which it is needed soonest.
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
