//! Members that keep their name over restarts.

use super::super::GroupState;
use super::super::answer::GroupError;
use super::super::request::{Join, Ticket};
use super::rig::*;

fn joining_as(instance: &str, id: &str) -> Join {
    Join {
        instance: Some(instance.into()),
        ..joining(id)
    }
}

/// Two static members, stable; answers the generation.
fn stable_pair(rig: &mut Rig) -> i32 {
    let a = rig.join("a1", joining_as("a", ""));
    let _b = rig.join("b1", joining_as("b", ""));
    rig.advance(2 * DELAY_MS);
    let generation = rig.joined(a).generation;
    rig.sync(
        static_member("a1", "a"),
        generation,
        &[("a1", "A"), ("b1", "B")],
    );
    rig.sync(static_member("b1", "b"), generation, &[]);
    assert_eq!(rig.state(), Some(GroupState::Stable));
    generation
}

#[test]
fn a_static_member_that_restarts_gets_its_share_back_without_a_rebalance() {
    let mut rig = Rig::new();
    let generation = stable_pair(&mut rig);
    let b = rig.join("b2", joining_as("b", ""));
    assert_eq!(
        (&*rig.joined(b).member, rig.joined(b).generation),
        ("b2", generation)
    );
    assert_eq!(rig.state(), Some(GroupState::Stable));
    let share = rig.sync(static_member("b2", "b"), generation, &[]);
    assert_eq!(rig.share(share), "B");
    assert_eq!(rig.heartbeat(&static_member("a1", "a"), generation), Ok(()));
}

#[test]
fn a_static_leader_that_restarts_is_not_asked_to_share_out() {
    let mut rig = Rig::new();
    let generation = stable_pair(&mut rig);
    let a = rig.join("a2", joining_as("a", ""));
    let joined = rig.joined(a);
    assert_eq!((&*joined.leader, joined.members.len()), ("a1", 0));
    let share = rig.sync(static_member("a2", "a"), generation, &[]);
    assert_eq!(rig.share(share), "A");
    // It does lead: its next join shares out anew.
    let again = rig.join("", joining_as("a", "a2"));
    rig.join("", joining_as("b", "b1"));
    assert_eq!(rig.joined(again).members.len(), 2);
}

#[test]
fn the_earlier_self_of_a_static_member_is_fenced() {
    let mut rig = Rig::new();
    let generation = stable_pair(&mut rig);
    rig.join("b2", joining_as("b", ""));
    let old = static_member("b1", "b");
    let fenced = Err(GroupError::FencedInstance);
    assert_eq!(rig.heartbeat(&old, generation), fenced);
    assert_eq!(rig.check_commit(old.clone(), generation), fenced);
    assert_eq!(rig.leave(&old), fenced);
    let sync = rig.sync(old, generation, &[]);
    assert_eq!(rig.synced(sync), Err(GroupError::FencedInstance));
    let join = rig.join("", joining_as("b", "b1"));
    assert_eq!(rig.refused(join).error, GroupError::FencedInstance);
    let unknown = static_member("c1", "c");
    assert_eq!(
        rig.heartbeat(&unknown, generation),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn a_static_member_that_comes_with_another_offer_causes_a_rebalance() {
    let mut rig = Rig::new();
    let generation = stable_pair(&mut rig);
    let both = Join {
        protocols: protocols(&["robin", "range"]),
        ..joining_as("a", "a1")
    };
    let a = rig.join("", both.clone());
    let b = rig.join(
        "",
        Join {
            instance: Some("b".into()),
            member: Some("b1".into()),
            ..both
        },
    );
    assert_eq!(&*rig.joined(a).protocol, "robin");
    assert_eq!(rig.joined(b).generation, generation + 1);
    rig.sync(static_member("a1", "a"), generation + 1, &[]);
    rig.sync(static_member("b1", "b"), generation + 1, &[]);
    // The next vote would choose another protocol, so the shares cannot stay.
    let back = rig.join("b2", joining_as("b", ""));
    assert!(rig.waits(back));
    assert_eq!(rig.state(), Some(GroupState::PreparingRebalance));
}

#[test]
fn a_static_member_that_restarts_while_it_waits_fences_the_one_that_waited() {
    let mut rig = Rig::new();
    let first = rig.join("a1", joining_as("a", ""));
    let second = rig.join("a2", joining_as("a", ""));
    assert_eq!(rig.refused(first).error, GroupError::FencedInstance);
    rig.advance(DELAY_MS);
    let joined = rig.joined(second);
    assert_eq!(
        (&*joined.member, &*joined.leader, joined.members.len()),
        ("a2", "a2", 1)
    );
}

#[test]
fn a_static_member_that_restarts_during_the_share_out_causes_another_rebalance() {
    let mut rig = Rig::new();
    let a = rig.join("a1", joining_as("a", ""));
    rig.join("b1", joining_as("b", ""));
    rig.advance(2 * DELAY_MS);
    let generation = rig.joined(a).generation;
    let waits = rig.sync(static_member("b1", "b"), generation, &[]);
    let b: Ticket = rig.join("b2", joining_as("b", ""));
    assert_eq!(rig.synced(waits), Err(GroupError::FencedInstance));
    assert_eq!(rig.state(), Some(GroupState::PreparingRebalance));
    rig.join("", joining_as("a", "a1"));
    assert_eq!(rig.joined(b).generation, generation + 1);
}

#[test]
fn a_static_member_keeps_its_share_while_it_is_away_until_its_session_ends() {
    let mut rig = Rig::new();
    let generation = stable_pair(&mut rig);
    rig.advance(SESSION_MS - 1);
    assert_eq!(rig.heartbeat(&static_member("a1", "a"), generation), Ok(()));
    rig.advance(1);
    let told = rig.heartbeat(&static_member("a1", "a"), generation);
    assert_eq!(told, Err(GroupError::RebalanceInProgress));
    assert_eq!(rig.groups.describe(GROUP).map(|d| d.members.len()), Some(1));
}

#[test]
fn a_rebalance_keeps_static_members_that_have_not_joined_again() {
    let mut rig = Rig::new();
    let generation = stable_pair(&mut rig);
    let a = rig.join("", joining_as("a", "a1"));
    // It lives, but is slow to join.
    for _ in 0..REBALANCE_MS / 5_000 {
        let _ = rig.heartbeat(&static_member("b1", "b"), generation);
        rig.advance(5_000);
    }
    assert_eq!(rig.joined(a).members.len(), 2);
}

#[test]
fn an_administrator_sends_a_static_member_away_by_its_name_alone() {
    let mut rig = Rig::new();
    stable_pair(&mut rig);
    assert_eq!(rig.leave(&static_member("", "b")), Ok(()));
    assert_eq!(
        rig.leave(&static_member("", "b")),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(rig.leave(&member("")), Err(GroupError::UnknownMember));
    let left = rig.groups.describe(GROUP).map(|d| d.members.len());
    assert_eq!(left, Some(1));
}
