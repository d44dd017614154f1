//! The faults of a history, which are drawn from its seed. Its weather decides which of them come often.

use crate::random::Random;
use crate::world::{MS, SECOND, World};
use crate::{END, HEALED, draft, job};
use wing_crontab::model::command::Command;
use wing_crontab::model::{JobId, RunKey, Second};

/// Which faults come often. Whatever the weather, every other fault comes now and then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Weather {
    Mixed,
    /// Several hosts are cut off or stopped together.
    Groups,
    /// The store takes its time, and leaders go one after the other.
    SlowStore,
    /// A leader is cut off from the services, and other nodes read an old state in Consul, by which it still leads.
    OldNews,
    /// Daemons die again and again within a second.
    Crashes,
    /// Jobs are changed all the time.
    Changes,
    /// Hosts lose Consul and nothing else, some of them for good.
    Agents,
    /// There is one node, without Consul, and nobody speaks to it: only its own timers wake it.
    Alone,
}

impl Weather {
    pub const ALL: [Weather; 8] = [
        Weather::Mixed,
        Weather::Groups,
        Weather::SlowStore,
        Weather::OldNews,
        Weather::Crashes,
        Weather::Changes,
        Weather::Agents,
        Weather::Alone,
    ];

    pub fn of(seed: u64) -> Weather {
        Weather::ALL[(seed % Weather::ALL.len() as u64) as usize]
    }

    /// The nth seed that has this weather.
    pub fn seed(self, nth: u64) -> u64 {
        let at = Weather::ALL.iter().position(|weather| *weather == self).unwrap_or(0);
        nth * Weather::ALL.len() as u64 + at as u64
    }

    /// How long until the next fault.
    pub fn pause_ms(self, random: &mut Random) -> u64 {
        match self {
            Weather::Changes => random.within(100, 1_500),
            Weather::Alone => random.within(2_000, 25_000),
            _ => random.within(300, 6_000),
        }
    }

    pub fn fault(self, world: &mut World, random: &mut Random) {
        match self {
            Weather::Groups if random.chance(40) => group(world, random),
            Weather::Groups if random.chance(40) => stop_at_start(world, random),
            Weather::SlowStore if random.chance(60) => slow_store(world, random),
            Weather::OldNews if random.chance(70) => old_news(world, random),
            Weather::Crashes if random.chance(50) => crashes(world, random),
            Weather::Changes if random.chance(80) => change(world, random),
            Weather::Agents if random.chance(60) => agents(world, random),
            Weather::Alone => alone(world, random),
            _ => any(world, random),
        }
    }
}

impl Weather {
    /// Faults that stay when everything else is well again. One host keeps Consul: without it no node could be elected.
    pub fn stay(self, world: &mut World, random: &mut Random) {
        if self != Weather::Agents {
            return;
        }
        let keeps = host(world, random);
        let time = END - world.now;
        for host in (0..world.hosts.len()).filter(|host| *host != keeps) {
            cut_from_consul(world, host, time);
        }
    }
}

/// How long a fault lasts: mostly some seconds, now and then a minute, and never longer than until the world heals.
fn time(world: &World, random: &mut Random) -> u64 {
    let ms = if random.chance(10) { random.within(15_000, 60_000) } else { random.within(200, 15_000) };
    (ms * MS).min(HEALED.saturating_sub(world.now))
}

fn host(world: &World, random: &mut Random) -> usize {
    random.within(0, world.hosts.len() as u64) as usize
}

fn group(world: &mut World, random: &mut Random) {
    let nodes = world.hosts.len();
    let time = (random.within(5_000, 30_000) * MS).min(HEALED.saturating_sub(world.now));
    let leader = world.leader.filter(|_| random.chance(70)).unwrap_or_else(|| host(world, random));
    let others = random.within(1, nodes as u64 / 2 + 1);
    let group: Vec<usize> = (0..=others as usize).map(|at| (leader + at) % nodes).collect();
    let is_stopped = random.chance(25);
    world.say(format!("together: {group:?}"));
    for host in &group {
        if is_stopped {
            world.pause(*host, time, true);
            continue;
        }
        for other in (0..nodes + 2).filter(|other| !group.contains(other)) {
            cut_both_ways(world, *host, other, time);
        }
    }
    if random.chance(50) {
        // Nothing else happens meanwhile.
        world.run(world.now + time);
    }
}

/// Stops the next host that is about to start a run of a mutex job.
fn stop_at_start(world: &mut World, random: &mut Random) {
    let time = (random.within(5_000, 30_000) * MS).min(HEALED.saturating_sub(world.now));
    world.stop_at_start(time, random.chance(50));
}

fn slow_store(world: &mut World, random: &mut Random) {
    let latency_ms = random.within(50, 1_200);
    let time = (random.within(5_000, 25_000) * MS).min(HEALED.saturating_sub(world.now));
    world.slow_store(latency_ms, time);
    // Several leaders die one after the other, each while it catches up.
    for _ in 0..random.within(1, 5) {
        let until = (world.now + random.within(300, 7_000) * MS).min(HEALED);
        world.run(until);
        let Some(leader) = world.leader else { return };
        match random.within(0, 4) {
            0 => world.pause(leader, random.within(2_000, 20_000) * MS, true),
            1 => world.kill_host(leader, random.within(2_000, 20_000) * MS, false),
            _ => world.kill_daemon(leader),
        }
    }
}

/// A leader is cut off from the services and from every node that reaches them, and goes on leading. When another node
/// has taken over, some nodes read an old state in Consul and come back to the first leader.
fn old_news(world: &mut World, random: &mut Random) {
    let nodes = world.hosts.len();
    let Some(leader) = world.leader else { return };
    let cut_at = world.now;
    let left = HEALED.saturating_sub(world.now);
    let time = (random.within(15_000, 40_000) * MS).min(left);
    for service in [nodes, nodes + 1] {
        cut_both_ways(world, leader, service, time);
    }
    let until = (world.now + random.within(4_500, 11_000) * MS).min(HEALED);
    // A leader keeps the lead as long as it knows of no node that has the store.
    for other in (0..nodes).filter(|other| *other != leader) {
        world.cut(other, leader, until - world.now);
    }
    world.run(until);
    for host in (0..nodes).filter(|host| *host != leader) {
        if random.chance(70) {
            let time = (random.within(2_000, 16_000) * MS).min(HEALED.saturating_sub(world.now));
            world.read_old_news(host, cut_at, time);
        }
    }
    let until = (world.now + random.within(1_000, 12_000) * MS).min(HEALED);
    world.run(until);
}

fn crashes(world: &mut World, random: &mut Random) {
    let host = world.leader.filter(|_| random.chance(30)).unwrap_or_else(|| host(world, random));
    if random.chance(60) {
        // During the crashes the host cannot write log rows.
        let time = (random.within(1_000, 8_000) * MS).min(HEALED.saturating_sub(world.now));
        let store = world.hosts.len();
        world.cut(host, store, time);
    }
    for _ in 0..random.within(2, 5) {
        world.kill_daemon(host);
        let until = (world.now + random.within(60, 1_200) * MS).min(HEALED);
        world.run(until);
    }
}

fn agents(world: &mut World, random: &mut Random) {
    let nodes = world.hosts.len();
    let first = world.leader.filter(|_| random.chance(50)).unwrap_or_else(|| host(world, random));
    let time = time(world, random);
    for at in 0..random.within(1, nodes as u64 + 1) as usize {
        cut_from_consul(world, (first + at) % nodes, time);
    }
    if random.chance(30) {
        world.kill_daemon(host(world, random));
    }
}

fn cut_both_ways(world: &mut World, one: usize, other: usize, time: u64) {
    world.cut(one, other, time);
    world.cut(other, one, time);
}

fn cut_from_consul(world: &mut World, host: usize, time: u64) {
    let consul = world.hosts.len() + 1;
    cut_both_ways(world, host, consul, time);
}

fn change(world: &mut World, random: &mut Random) {
    let Some(id) = job(world, "changed") else { return };
    let host = host(world, random);
    if random.chance(30) {
        return control(world, random, host);
    }
    let cron_set = ["* * * * * *", "*/2 * * * * *"][random.within(0, 2) as usize];
    let command = match random.within(0, 3) {
        0 => Command::StopJob(id),
        1 => Command::StartJob(id),
        _ => Command::UpdateJob(id, draft(cron_set, "changed", false)),
    };
    if world.is_up(host) {
        world.command(host, command);
    }
}

/// A user pauses the cluster or ends a pause, asks for a run, or ends one.
fn control(world: &mut World, random: &mut Random, host: usize) {
    let jobs: Vec<JobId> = world.store.jobs.keys().copied().collect();
    let id = jobs[random.within(0, jobs.len() as u64) as usize];
    let command = match random.within(0, 10) {
        0 | 1 => Command::Pause(!world.store.is_paused),
        2..6 => Command::RunJob(id, None),
        _ => Command::KillRun(RunKey::scheduled(id, Second(world.second() - random.within(0, 12) as i64))),
    };
    if world.is_up(host) {
        world.command(host, command);
    }
}

/// One of the faults that a node can have that stands alone.
fn alone(world: &mut World, random: &mut Random) {
    let time = time(world, random);
    match random.within(0, 7) {
        0 => world.kill_daemon(0),
        1 => world.kill_host(0, time, random.chance(30)),
        2 => world.stop_cleanly(0),
        3 => world.pause(0, time, random.chance(50)),
        4 => world.store_away(time),
        5 => world.slow_store(random.within(50, 1_200), time),
        _ => world.step_clock(0, random.within(0, 12_000) as i64 - 6_000),
    }
}

fn any(world: &mut World, random: &mut Random) {
    let nodes = world.hosts.len();
    let (host, time) = (host(world, random), time(world, random));
    let (store, consul) = (nodes, nodes + 1);
    match random.within(0, 20) {
        0 | 1 => world.kill_daemon(host),
        2 => world.kill_host(host, time, random.chance(50)),
        3 => world.stop_cleanly(host),
        4 | 5 => world.pause(host, time, true),
        6 => world.pause(host, time, false),
        7 | 8 => {
            let other = random.within(0, nodes as u64 + 2) as usize;
            world.cut(host, other, time);
            if random.chance(60) {
                world.cut(other, host, time);
            }
        }
        9 => (0..nodes + 2).filter(|other| *other != host).for_each(|other| cut_both_ways(world, host, other, time)),
        10 => world.store_away(time),
        11 => world.consul_away(time),
        12 => {
            let most_ms = if random.chance(80) { 200 } else { 3_000 };
            world.step_clock(host, random.within(0, 2 * most_ms) as i64 - most_ms as i64);
        }
        13 => group(world, random),
        14 => slow_store(world, random),
        15 => crashes(world, random),
        16 => {
            let since = world.now.saturating_sub(random.within(1, 10) * SECOND);
            world.read_old_news(host, since, time.min(10 * SECOND));
        }
        17 => stop_at_start(world, random),
        // The host loses both services, and the other hosts can still reach it.
        18 => [store, consul].into_iter().for_each(|service| cut_both_ways(world, host, service, time)),
        _ => change(world, random),
    }
}
