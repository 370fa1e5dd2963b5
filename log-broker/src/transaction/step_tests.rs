use super::*;

const LIMITS: Limits = Limits {
    next_id: 100,
    frame_bytes: 1 << 20,
    timeout_max_ms: 1000,
};

/// Tables in which `producer` holds the transactional id "a".
fn tables(producer: Producer, ongoing: bool) -> Tables {
    let mut tables = Tables::default();
    let id: Arc<str> = "a".into();
    tables.transactions.init(&id, producer, None, 1000, 0);
    if ongoing {
        tables.transactions.add(&id, &[], &["g".into()], 0);
    }
    tables
}

fn init(tables: &Tables, current: Option<Producer>) -> Decision {
    let step = Step::Init {
        id: Some("a".into()),
        timeout_ms: 1000,
        current,
    };
    step.decide(tables, &LIMITS).expect("begun")
}

#[test]
fn behind_the_last_epoch_a_transactional_id_gets_another_producer_id() {
    let last = |epoch| Producer { id: 7, epoch };
    for ongoing in [false, true] {
        let next = init(&tables(last(EPOCH_MAX - 1), ongoing), None).producer;
        assert_eq!(next, last(EPOCH_MAX));
        for (epoch, current) in [
            (EPOCH_MAX, None),
            (EPOCH_MAX, Some(last(EPOCH_MAX))),
            (i16::MAX, None),
        ] {
            let next = init(&tables(last(epoch), ongoing), current).producer;
            assert_eq!(next, Producer { id: 100, epoch: 0 });
        }
    }
}

#[test]
fn a_timed_out_holder_of_the_last_epoch_is_still_shut_out() {
    let tables = tables(
        Producer {
            id: 7,
            epoch: EPOCH_MAX,
        },
        true,
    );
    let step = Step::TimeOut {
        id: "a".into(),
        now_ms: 1000,
    };
    let ended = step.decide(&tables, &LIMITS).expect("aborted");
    assert_eq!(ended.producer.epoch, i16::MAX);
    let late = Step::TimeOut {
        id: "a".into(),
        now_ms: 999,
    };
    let nothing = late.decide(&tables, &LIMITS).expect("looked at");
    assert!(nothing.entries.is_empty());
}

#[test]
fn a_lost_answer_is_given_again_also_when_the_producer_id_was_replaced() {
    let old = Producer {
        id: 7,
        epoch: EPOCH_MAX,
    };
    let mut tables = tables(old, false);
    let new = init(&tables, Some(old)).producer;
    let id: Arc<str> = "a".into();
    tables.transactions.init(&id, new, Some(old), 1000, 0);
    assert_eq!(init(&tables, Some(old)), nothing(new));
}
