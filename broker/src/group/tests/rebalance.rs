//! Joining, sharing out, and doing it again.

use super::super::answer::{Answer, GroupError};
use super::super::request::{Join, Sync, Ticket};
use super::super::{GroupOptions, GroupState};
use super::rig::*;

#[test]
fn the_first_member_waits_for_others_and_each_of_them_begins_the_wait_anew() {
    let mut rig = Rig::new();
    let a = rig.join("a", joining(""));
    rig.advance(DELAY_MS - 1);
    let b = rig.join("b", joining(""));
    rig.advance(1);
    assert!(
        rig.waits(a) && rig.waits(b),
        "put off, because b has joined"
    );
    rig.advance(DELAY_MS - 1);
    assert!(rig.waits(a));
    rig.advance(1);
    assert_eq!(rig.joined(a).generation, 1);
    assert_eq!(rig.joined(a).members.len(), 2);
    assert_eq!(rig.joined(b).members.len(), 0, "only the leader shares out");
    assert_eq!(rig.joined(b).leader, rig.joined(a).leader);
}

#[test]
fn the_first_wait_ends_after_the_rebalance_timeout_however_many_join() {
    let mut rig = Rig::new();
    let first = rig.join("0", joining(""));
    for n in 1..=REBALANCE_MS / 1_000 {
        assert!(rig.waits(first));
        rig.advance(1_000);
        rig.join(&n.to_string(), joining(""));
    }
    assert!(!rig.waits(first));
}

#[test]
fn a_group_without_a_delay_begins_with_its_first_member() {
    let options = GroupOptions {
        initial_rebalance_delay_ms: 0,
        ..GroupOptions::default()
    };
    let mut rig = Rig::with(options);
    let a = rig.join("a", joining(""));
    assert_eq!(rig.joined(a).generation, 1);
}

#[test]
fn a_member_must_come_again_with_the_id_that_it_is_given() {
    let mut rig = Rig::new();
    let first = rig.join(
        "a",
        Join {
            id_required: true,
            ..joining("")
        },
    );
    let refused = rig.refused(first);
    assert_eq!(
        (refused.error, &*refused.member),
        (GroupError::MemberIdRequired, "a")
    );
    let again = rig.join("", joining("a"));
    rig.advance(DELAY_MS);
    assert_eq!(&*rig.joined(again).member, "a");
}

#[test]
fn a_rebalance_waits_for_a_member_that_was_told_its_id_but_not_for_ever() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a"]);
    rig.join(
        "b",
        Join {
            id_required: true,
            ..joining("")
        },
    );
    let a = rig.join("", joining("a"));
    assert!(rig.waits(a));
    rig.advance(SESSION_MS);
    assert_eq!(rig.joined(a).generation, generation + 1);
    let late = rig.join("", joining("b"));
    assert_eq!(rig.refused(late).error, GroupError::UnknownMember);
}

#[test]
fn a_member_that_joins_a_stable_group_makes_the_others_join_again() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    let c = rig.join("c", joining(""));
    for id in ["a", "b"] {
        let told = rig.heartbeat(&member(id), generation);
        assert_eq!(told, Err(GroupError::RebalanceInProgress));
        assert!(rig.waits(c));
        rig.join("", joining(id));
    }
    assert_eq!(rig.joined(c).generation, generation + 1);
    assert_eq!(
        rig.heartbeat(&member("a"), generation),
        Err(GroupError::IllegalGeneration)
    );
    assert_eq!(rig.heartbeat(&member("a"), generation + 1), Ok(()));
}

#[test]
fn a_member_that_does_not_join_again_in_time_is_left_out() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    let a = rig.join("", joining("a"));
    // It still says that it lives, so it is the rebalance that leaves it out.
    for _ in 0..REBALANCE_MS / 5_000 {
        assert!(rig.waits(a));
        let _ = rig.heartbeat(&member("b"), generation);
        rig.advance(5_000);
    }
    assert_eq!(rig.joined(a).members.len(), 1);
    assert_eq!(
        rig.heartbeat(&member("b"), generation),
        Err(GroupError::UnknownMember)
    );
}

#[test]
fn another_member_leads_when_the_leader_does_not_join_again() {
    let mut rig = Rig::new();
    rig.stable(&["a", "b", "c"]);
    let b = rig.join(
        "",
        Join {
            protocols: protocols(&["range", "other"]),
            ..joining("b")
        },
    );
    let c = rig.join("", joining("c"));
    rig.advance(REBALANCE_MS);
    assert_eq!(&*rig.joined(b).leader, "b");
    assert_eq!(&*rig.joined(c).leader, "b");
    assert_eq!(rig.joined(b).members.len(), 2);
}

#[test]
fn the_protocol_that_most_members_like_best_is_chosen_of_those_that_all_support() {
    let mut rig = Rig::new();
    let offers: [(&str, &[&str]); 3] = [
        ("a", &["sticky", "range", "robin"]),
        ("b", &["robin", "range"]),
        ("c", &["range", "robin", "sticky"]),
    ];
    let tickets = offers.map(|(name, offer)| {
        rig.join(
            name,
            Join {
                protocols: protocols(offer),
                ..joining("")
            },
        )
    });
    let alien = rig.join(
        "d",
        Join {
            protocols: protocols(&["sticky"]),
            ..joining("")
        },
    );
    assert_eq!(rig.refused(alien).error, GroupError::InconsistentProtocol);
    let alien = rig.join(
        "d",
        Join {
            protocol_type: "connect".into(),
            ..joining("")
        },
    );
    assert_eq!(rig.refused(alien).error, GroupError::InconsistentProtocol);
    rig.advance(2 * DELAY_MS);
    // `sticky` is not supported by b, so a's vote goes to what it likes second.
    for ticket in tickets {
        assert_eq!(&*rig.joined(ticket).protocol, "range");
    }
}

#[test]
fn a_first_member_without_any_protocol_is_refused() {
    let mut rig = Rig::new();
    for join in [
        Join {
            protocols: Vec::new(),
            ..joining("")
        },
        Join {
            protocol_type: "".into(),
            ..joining("")
        },
    ] {
        let ticket = rig.join("a", join);
        assert_eq!(rig.refused(ticket).error, GroupError::InconsistentProtocol);
    }
}

#[test]
fn a_follower_that_repeats_its_join_is_told_the_generation_it_is_in() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    let again = rig.join("", joining("b"));
    assert_eq!(rig.joined(again).generation, generation);
    assert_eq!(rig.state(), Some(GroupState::Stable));
    let leader = rig.join("", joining("a"));
    assert!(
        rig.waits(leader),
        "a leader that joins again wants to share out anew"
    );
    assert_eq!(rig.state(), Some(GroupState::PreparingRebalance));
}

#[test]
fn a_join_that_is_repeated_on_another_connection_answers_the_first_one_too() {
    let mut rig = Rig::new();
    rig.stable(&["a", "b"]);
    let first = rig.join("", joining("a"));
    let second = rig.join("", joining("a"));
    assert_eq!(rig.refused(first).error, GroupError::RebalanceInProgress);
    assert!(rig.waits(second));
}

#[test]
fn a_join_during_the_share_out_sends_those_who_wait_for_it_back_to_joining() {
    let mut rig = Rig::new();
    let (a, b) = (rig.join("a", joining("")), rig.join("b", joining("")));
    rig.advance(2 * DELAY_MS);
    let generation = rig.joined(a).generation;
    assert_eq!(rig.joined(b).generation, generation);
    let waiting = rig.sync(member("b"), generation, &[]);
    assert!(rig.waits(waiting));
    rig.join("c", joining(""));
    assert_eq!(rig.synced(waiting), Err(GroupError::RebalanceInProgress));
    let late = rig.sync(member("a"), generation, &[("a", "all")]);
    assert_eq!(rig.synced(late), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_member_that_the_leader_forgot_has_nothing_to_do_and_strangers_get_nothing() {
    let mut rig = Rig::new();
    let a = rig.join("a", joining(""));
    rig.join("b", joining(""));
    rig.advance(2 * DELAY_MS);
    let generation = rig.joined(a).generation;
    let a = rig.sync(
        member("a"),
        generation,
        &[("a", "all"), ("stranger", "more")],
    );
    assert_eq!(rig.share(a), "all");
    let b = rig.sync(member("b"), generation, &[("b", "I take it all")]);
    assert_eq!(rig.share(b), "", "only the leader shares out");
}

#[test]
fn a_sync_for_another_generation_protocol_or_type_is_refused() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a"]);
    let other = rig.sync(member("a"), generation - 1, &[]);
    assert_eq!(rig.synced(other), Err(GroupError::IllegalGeneration));
    let other = rig.sync(member("b"), generation, &[]);
    assert_eq!(rig.synced(other), Err(GroupError::UnknownMember));
    for (kind, protocol) in [("connect", "range"), ("consumer", "robin")] {
        let sync = Sync {
            ticket: Ticket(u64::MAX),
            member: member("a"),
            generation,
            protocol_type: Some(kind.into()),
            protocol: Some(protocol.into()),
            assignments: Vec::new(),
        };
        let mut out = Vec::new();
        rig.groups.sync(&GROUP.into(), sync, rig.now, &mut out);
        let refused = Err(GroupError::InconsistentProtocol);
        assert_eq!(out, [Answer::Sync(Ticket(u64::MAX), refused)]);
    }
}

#[test]
fn members_that_leave_make_the_others_share_out_anew() {
    let mut rig = Rig::new();
    let generation = rig.stable(&["a", "b"]);
    assert_eq!(rig.leave(&member("a")), Ok(()));
    assert_eq!(rig.leave(&member("a")), Err(GroupError::UnknownMember));
    let b = rig.join("", joining("b"));
    assert_eq!(rig.joined(b).generation, generation + 1);
    assert_eq!(&*rig.joined(b).leader, "b");
    assert_eq!(rig.leave(&member("b")), Ok(()));
    assert_eq!(rig.state(), Some(GroupState::Empty));
}

#[test]
fn a_member_that_leaves_while_it_waits_is_answered() {
    let mut rig = Rig::new();
    rig.stable(&["a", "b"]);
    let a = rig.join(
        "",
        Join {
            protocols: protocols(&["range", "x"]),
            ..joining("a")
        },
    );
    let b = rig.join("", joining("b"));
    assert!(!rig.waits(a) && !rig.waits(b));
    let generation = rig.joined(b).generation;
    let sync = rig.sync(member("b"), generation, &[]);
    assert_eq!(rig.leave(&member("b")), Ok(()));
    assert_eq!(rig.synced(sync), Err(GroupError::UnknownMember));
    let join = rig.join("c", joining(""));
    assert_eq!(rig.leave(&member("c")), Ok(()));
    assert_eq!(rig.refused(join).error, GroupError::UnknownMember);
}

#[test]
fn a_full_group_takes_nobody_in_but_lets_its_members_join_again() {
    let options = GroupOptions {
        members_max: 2,
        ..GroupOptions::default()
    };
    let mut rig = Rig::with(options);
    rig.stable(&["a", "b"]);
    for id_required in [false, true] {
        let c = rig.join(
            "c",
            Join {
                id_required,
                ..joining("")
            },
        );
        assert_eq!(rig.refused(c).error, GroupError::GroupFull);
    }
    let a = rig.join("", joining("a"));
    assert!(rig.waits(a));
}
