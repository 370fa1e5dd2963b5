//! What time does, and what it leaves alone.

use super::super::GroupState;
use super::super::answer::GroupError;
use super::super::limits;
use super::super::request::Join;
use super::rig::*;

#[test]
fn a_member_that_is_silent_for_its_session_timeout_is_removed() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    rig.advance(SESSION_MS - 1);
    assert_eq!(rig.heartbeat(&member("a"), generation), Ok(()));
    rig.advance(1);
    assert_eq!(rig.state(), Some(GroupState::PreparingRebalance));
    assert_eq!(
        rig.heartbeat(&member("b"), generation),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn the_last_member_that_falls_silent_leaves_an_empty_group() {
    let mut rig = Rig::new();
    rig.stable(&["a"]);
    rig.advance(SESSION_MS);
    assert_eq!(rig.state(), Some(GroupState::Empty));
}

#[test]
fn a_commit_counts_as_a_sign_of_life() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a"]);
    for _ in 0..4 {
        rig.advance(SESSION_MS - 1);
        assert_eq!(rig.check_commit(member("a"), generation), Ok(()));
    }
}

#[test]
fn a_member_that_waits_for_others_owes_no_heartbeat() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    let a = rig.join("", joining("a"));
    for _ in 0..5 {
        rig.advance(SESSION_MS / 2);
        let _ = rig.heartbeat(&member("b"), generation);
    }
    assert!(rig.waits(a));
    rig.join("", joining("b"));
    assert_eq!(rig.joined(a).members.len(), 2);
}

#[test]
fn a_member_that_never_asks_for_its_share_is_removed() {
    let mut rig = Rig::new();
    let (a, b) = (rig.join("a", joining("")), rig.join("b", joining("")));
    rig.advance(2 * DELAY_MS);
    let generation = rig.joined(a).generation;
    assert_eq!(rig.joined(b).generation, generation);
    let share = rig.sync(member("a"), generation, &[("a", "half")]);
    assert_eq!(rig.share(share), "half");
    for _ in 0..REBALANCE_MS / 5_000 {
        let _ = rig.heartbeat(&member("a"), generation);
        let _ = rig.heartbeat(&member("b"), generation);
        rig.advance(5_000);
    }
    assert_eq!(
        rig.heartbeat(&member("b"), generation),
        Err(GroupError::UnknownMember)
    );
    let told = rig.heartbeat(&member("a"), generation);
    assert_eq!(told, Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_leader_that_dies_before_it_shares_out_does_not_hold_up_the_others() {
    let mut rig = Rig::new();
    let (a, b) = (rig.join("a", joining("")), rig.join("b", joining("")));
    rig.advance(2 * DELAY_MS);
    let generation = rig.joined(a).generation;
    assert_eq!(&*rig.joined(b).leader, "a");
    let waits = rig.sync(member("b"), generation, &[]);
    rig.advance(SESSION_MS);
    assert_eq!(rig.synced(waits), Err(GroupError::RebalanceInProgress));
    let b = rig.join("", joining("b"));
    assert_eq!(
        (&*rig.joined(b).leader, rig.joined(b).members.len()),
        ("b", 1)
    );
}

#[test]
fn a_new_member_does_not_wait_for_ever() {
    let mut rig = Rig::new();
    let long = Join {
        rebalance_timeout_ms: u64::MAX,
        ..joining("")
    };
    let a = rig.join(
        "a",
        Join {
            instance: Some("a".into()),
            ..long.clone()
        },
    );
    rig.advance(DELAY_MS);
    let generation = rig.joined(a).generation;
    let b = rig.join("b", long);
    let mut waited = 0;
    while rig.waits(b) {
        let _ = rig.heartbeat(&static_member("a", "a"), generation);
        rig.advance(5_000);
        waited += 5_000;
    }
    assert_eq!(rig.refused(b).error, GroupError::UnknownMember);
    assert_eq!(waited, limits::NEW_MEMBER_JOIN_MS);
}

#[test]
fn a_new_member_whose_connection_is_gone_is_not_waited_for() {
    let mut rig = Rig::new();
    let a = rig.join("a", joining(""));
    let b = rig.join("b", joining(""));
    rig.abandon(b);
    rig.advance(2 * DELAY_MS);
    assert_eq!(rig.joined(a).members.len(), 1);
    assert_eq!(rig.refused(b).error, GroupError::UnknownMember);
}

#[test]
fn a_member_that_knows_its_id_may_come_back_on_another_connection() {
    let mut rig = Rig::new();
    rig.join(
        "a",
        Join {
            id_required: true,
            ..joining("")
        },
    );
    let lost = rig.join("", joining("a"));
    rig.abandon(lost);
    let again = rig.join("", joining("a"));
    rig.advance(2 * DELAY_MS);
    assert_eq!(rig.joined(again).members.len(), 1);
}

#[test]
fn an_empty_group_goes_on_counting_generations_until_it_is_forgotten() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a"]);
    assert_eq!(rig.leave(&member("a")), Ok(()));
    rig.advance(limits::EMPTY_GROUP_KEPT_MS - 1);
    assert_eq!(rig.state(), Some(GroupState::Empty));
    let b = rig.join("b", joining(""));
    rig.advance(DELAY_MS);
    assert!(rig.joined(b).generation > generation);
    assert_eq!(rig.leave(&member("b")), Ok(()));
    rig.advance(limits::EMPTY_GROUP_KEPT_MS);
    assert_eq!(rig.state(), None);
    assert_eq!(rig.groups.next_wake(), None);
}

#[test]
fn a_group_that_only_gave_ids_out_is_forgotten_after_their_owners_time() {
    let mut rig = Rig::new();
    let session_timeout_ms = 2 * limits::EMPTY_GROUP_KEPT_MS;
    rig.join(
        "a",
        Join {
            id_required: true,
            session_timeout_ms,
            ..joining("")
        },
    );
    rig.advance(session_timeout_ms - 1);
    assert_eq!(rig.state(), Some(GroupState::Empty));
    rig.advance(1);
    assert_eq!(rig.state(), None);
}

#[test]
fn static_members_that_all_fell_silent_during_a_rebalance_leave_an_empty_group() {
    let mut rig = Rig::new();
    let instance = Some("a".into());
    let hasty = Join {
        rebalance_timeout_ms: 0,
        instance,
        ..joining("")
    };
    let a = rig.join("a", hasty.clone());
    rig.advance(DELAY_MS);
    let generation = rig.joined(a).generation;
    let b = rig.join(
        "b",
        Join {
            instance: None,
            ..hasty
        },
    );
    assert_eq!(rig.leave(&member("b")), Ok(()));
    assert!(!rig.waits(b));
    for _ in 0..10 {
        let _ = rig.heartbeat(&static_member("a", "a"), generation);
        rig.advance(SESSION_MS / 2);
    }
    rig.advance(SESSION_MS);
    assert_eq!(rig.state(), Some(GroupState::Empty));
}
