//! Wrong settings are named before anything is read.

use super::*;

async fn refused(consumer: Consumer<Inbox>) -> String {
    let stop = CancellationToken::new();
    stop.cancel();
    consumer.run(stop).await.expect_err("refused").to_string()
}

#[tokio::test]
async fn a_wrong_name_says_what_a_name_is() {
    let world = World::default();
    let long = "n".repeat(64);
    for name in ["", "Billing", "billing service", long.as_str()] {
        let text = refused(world.keeper(|_| Ok(())).name(name)).await;
        let len = name.len();
        assert!(text.contains(&format!("{name:?} ({len} bytes)")), "{text}");
        assert!(text.contains("1 to 63 bytes of [a-z0-9_-]"), "{text}");
    }
}

#[tokio::test]
async fn a_wrong_pattern_is_shown_with_what_is_wrong() {
    let world = World::default();
    let text = refused(world.consumer().on("orders/*", |_, _| async { Ok(()) })).await;
    assert!(text.contains("orders/*") && text.contains("'/'"), "{text}");
}

#[tokio::test]
async fn a_consumer_without_a_handler_is_refused() {
    let text = refused(World::default().consumer()).await;
    assert!(text.contains("no handler"), "{text}");
}

#[tokio::test]
async fn numbers_out_of_bounds_name_the_field_and_the_limit() {
    let world = World::default();
    let text = refused(world.keeper(|_| Ok(())).workers(0)).await;
    assert!(text.contains("workers is 0, it must be 1 to 256"), "{text}");
    let text = refused(world.keeper(|_| Ok(())).batch(10_001)).await;
    assert!(
        text.contains("batch is 10001, it must be 1 to 10000"),
        "{text}"
    );
}
