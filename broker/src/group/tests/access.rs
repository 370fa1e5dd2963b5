//! Who may do what: commits, administration, bounds.

use bytes::Bytes;

use super::super::answer::GroupError;
use super::super::request::{Commit, Join, Protocol};
use super::super::{GroupOptions, GroupState, Subscribed, limits};
use super::rig::*;

#[test]
fn a_consumer_that_uses_offsets_only_commits_while_the_group_has_no_members() {
    let mut rig = Rig::new();
    assert_eq!(rig.check_commit(member(""), -1), Ok(()));
    assert_eq!(rig.check_commit(member("me"), -1), Ok(()));
    let generation = rig.stable(&["a"]);
    assert_eq!(
        rig.check_commit(member(""), -1),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(
        rig.check_commit(member("me"), -1),
        Err(GroupError::UnknownMember)
    );
    assert_eq!(
        rig.check_commit(member("a"), -1),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(rig.check_commit(member("a"), generation), Ok(()));
    rig.leave(&member("a")).expect("a member");
    assert_eq!(rig.check_commit(member(""), -1), Ok(()));
}

#[test]
fn a_commit_of_an_earlier_generation_or_a_stranger_is_refused() {
    let mut rig = Rig::new();
    // After a restart of the broker nobody is known.
    assert_eq!(
        rig.check_commit(member("a"), 7),
        Err(GroupError::IllegalGeneration)
    );
    let generation = rig.stable(&["a"]);
    let refused = rig.check_commit(member("a"), generation - 1);
    assert_eq!(refused, Err(GroupError::IllegalGeneration));
    assert_eq!(
        rig.check_commit(member("b"), generation),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn a_commit_passes_while_members_join_and_waits_for_the_share_out() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    let a = rig.join("", joining("a"));
    assert_eq!(rig.check_commit(member("b"), generation), Ok(()));
    rig.join("", joining("b"));
    let next = rig.joined(a).generation;
    assert_eq!(
        rig.check_commit(member("b"), next),
        Err(GroupError::RebalanceInProgress)
    );
}

#[test]
fn offsets_of_a_transaction_need_no_member_but_one_that_is_named_must_be_right() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a"]);
    let transactional = true;
    let mut check = |id: &str, generation| {
        rig.check(Commit {
            member: member(id),
            generation,
            transactional,
        })
    };
    assert_eq!(check("", -1), Ok(()));
    assert_eq!(check("a", generation), Ok(()));
    assert_eq!(
        check("a", generation - 1),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(check("b", generation), Err(GroupError::UnknownMember));
}

#[test]
fn a_group_is_deleted_only_without_members() {
    let mut rig = Rig::new();
    assert_eq!(rig.groups.delete(GROUP), Err(GroupError::NotFound));
    rig.stable(&["a"]);
    assert_eq!(rig.groups.delete(GROUP), Err(GroupError::NonEmpty));
    rig.leave(&member("a")).expect("a member");
    assert_eq!(rig.groups.delete(GROUP), Ok(()));
    assert_eq!(rig.state(), None);
    assert_eq!(rig.groups.next_wake(), None);
}

#[test]
fn only_topics_that_no_member_reads_may_lose_their_offsets() {
    let mut rig = Rig::new();
    let nobody = rig.groups.subscribed(GROUP).expect("no members");
    assert!(!nobody.contains("orders"));
    rig.stable(&["a"]);
    let some = rig.groups.subscribed(GROUP).expect("consumers");
    assert!(some.contains("orders") && !some.contains("refunds"));
    let metadata = Bytes::from_static(b"?");
    let odd = vec![Protocol {
        name: "range".into(),
        metadata,
    }];
    rig.join(
        "b",
        Join {
            protocols: odd,
            ..joining("")
        },
    );
    let any = rig.groups.subscribed(GROUP).expect("consumers");
    assert_eq!(any, Subscribed::Unknown);
    assert!(any.contains("refunds"));
}

#[test]
fn offsets_of_a_group_whose_members_are_no_consumers_stay() {
    let mut rig = Rig::new();
    rig.join(
        "a",
        Join {
            protocol_type: "connect".into(),
            ..joining("")
        },
    );
    assert_eq!(rig.groups.subscribed(GROUP), Err(GroupError::NonEmpty));
}

#[test]
fn shares_and_metadata_are_shown_of_a_stable_group_only() {
    let mut rig = Rig::new();
    rig.stable(&["a", "b"]);
    let stable = rig.groups.describe(GROUP).expect("a group");
    assert_eq!(
        (stable.state, &*stable.protocol),
        (GroupState::Stable, "range")
    );
    assert_eq!(stable.members[0].assignment, "a");
    assert_eq!(stable.members[0].metadata, subscription(&["orders"]));
    rig.join("c", joining(""));
    let unstable = rig.groups.describe(GROUP).expect("a group");
    assert_eq!((&*unstable.protocol, unstable.members.len()), ("", 3));
    assert!(
        unstable
            .members
            .iter()
            .all(|m| m.metadata.is_empty() && m.assignment.is_empty())
    );
    assert_eq!(rig.groups.list().len(), 1);
}

#[test]
fn what_is_out_of_bounds_is_refused_and_leaves_nothing_behind() {
    let mut rig = Rig::new();
    let long: std::sync::Arc<str> = "x".repeat(limits::NAME_BYTES_MAX + 1).into();
    let many = vec!["p"; limits::MEMBER_PROTOCOLS_MAX + 1];
    let cases = [
        (
            Join {
                session_timeout_ms: 5_999,
                ..joining("")
            },
            GroupError::InvalidSessionTimeout,
        ),
        (
            Join {
                session_timeout_ms: 1_800_001,
                ..joining("")
            },
            GroupError::InvalidSessionTimeout,
        ),
        (
            Join {
                instance: Some(long.clone()),
                ..joining("")
            },
            GroupError::InvalidRequest,
        ),
        (
            Join {
                protocol_type: long,
                ..joining("")
            },
            GroupError::InvalidRequest,
        ),
        (
            Join {
                protocols: protocols(&many),
                ..joining("")
            },
            GroupError::InvalidRequest,
        ),
        (joining("unknown"), GroupError::UnknownMember),
    ];
    for (join, error) in cases {
        let ticket = rig.join("a", join);
        assert_eq!(rig.refused(ticket).error, error);
    }
    for group in ["", &"x".repeat(limits::GROUP_ID_BYTES_MAX + 1)] {
        let ticket = rig.join_group(group, "a", joining(""));
        assert_eq!(rig.refused(ticket).error, GroupError::InvalidGroupId);
    }
    assert_eq!(rig.groups.list(), []);
}

#[test]
fn members_hold_no_more_bytes_than_a_group_may() {
    let mut rig = Rig::new();
    let metadata = Bytes::from(vec![0; limits::GROUP_BYTES_MAX / 2]);
    let big = vec![Protocol {
        name: "range".into(),
        metadata,
    }];
    let a = rig.join(
        "a",
        Join {
            protocols: big.clone(),
            ..joining("")
        },
    );
    let b = rig.join(
        "b",
        Join {
            protocols: big,
            ..joining("")
        },
    );
    assert_eq!(rig.refused(b).error, GroupError::GroupFull);
    rig.advance(DELAY_MS);
    let generation = rig.joined(a).generation;
    let share = "x".repeat(limits::GROUP_BYTES_MAX / 2);
    let sync = rig.sync(member("a"), generation, &[("a", &share)]);
    assert_eq!(rig.synced(sync), Err(GroupError::AssignmentTooLarge));
    assert_eq!(rig.state(), Some(GroupState::PreparingRebalance));
}

#[test]
fn all_groups_together_hold_no_more_bytes_than_the_coordinator_may() {
    let mut rig = Rig::new();
    let metadata = Bytes::from(vec![0; limits::GROUP_BYTES_MAX - 4_096]);
    let big = vec![Protocol {
        name: "range".into(),
        metadata,
    }];
    for n in 0..4 {
        let group = n.to_string();
        let first = rig.join_group(
            &group,
            "a",
            Join {
                protocols: big.clone(),
                ..joining("")
            },
        );
        assert!(rig.waits(first));
    }
    let one_more = rig.join_group(
        "5",
        "a",
        Join {
            protocols: big,
            ..joining("")
        },
    );
    assert_eq!(rig.refused(one_more).error, GroupError::NoRoom);
}

#[test]
fn the_oldest_empty_group_makes_room_for_a_new_one() {
    let options = GroupOptions {
        groups_max: 2,
        ..GroupOptions::default()
    };
    let mut rig = Rig::with(options);
    rig.stable(&["a"]);
    rig.leave(&member("a")).expect("a member");
    rig.join_group("second", "b", joining(""));
    rig.join_group("third", "c", joining(""));
    assert_eq!(rig.state(), None, "the empty one had to go");
    let fourth = rig.join_group("fourth", "d", joining(""));
    assert_eq!(rig.refused(fourth).error, GroupError::NoRoom);
}
