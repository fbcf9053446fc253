//! What trips the breaker, for whom, and for how long.

use serde_json::json;

use super::*;

fn breaker(spec: Value) -> Arc<Breaker> {
    Breaker::of(&serde_json::from_value(spec).expect("a specification"), None)
}

fn repeats() -> Arc<Breaker> {
    breaker(json!({"repeats": {"calls": 3, "window_seconds": 60}, "open_seconds": 30}))
}

fn failures() -> Arc<Breaker> {
    breaker(json!({"failures": {"percent": 50, "calls": 10, "window_seconds": 60}, "open_seconds": 30}))
}

fn bot(breaker: &Arc<Breaker>) -> Watched {
    breaker.watch(&"bot".into())
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_same_call_is_refused_after_so_many_and_let_through_after_a_while() {
    let (breaker, began) = (repeats(), Instant::now());
    let (bot, eve) = (bot(&breaker), breaker.watch(&"eve".into()));
    let arguments = json!({"b": 1, "a": [2]});
    for _ in 0..3 {
        assert_eq!(bot.begin(Some(("read", Some(&arguments))), began), Ok(()));
        // Other arguments, and another tool, are other calls.
        assert_eq!(bot.begin(Some(("read", Some(&json!({"b": 1, "a": [3]})))), began), Ok(()));
        assert_eq!(bot.begin(Some(("write", Some(&arguments))), began), Ok(()));
        assert_eq!(bot.begin(Some(("read", None)), began), Ok(()));
    }
    let trip = Trip::Repeats(model::Repeats { calls: 3, window_seconds: 60 });
    let again = serde_json::from_str(r#"{"a": [2], "b": 1}"#).expect("JSON");
    assert_eq!(
        bot.begin(Some(("read", Some(&again))), began),
        Err(Tripped { trip, retry_after: seconds(30) })
    );
    // Whatever it calls now, and what goes on; nobody else is stopped.
    assert!(bot.begin(None, began).is_err());
    let later = began + seconds(10);
    assert_eq!(bot.begin(Some(("other", None)), later), Err(Tripped { trip, retry_after: seconds(20) }));
    assert_eq!(eve.begin(Some(("read", Some(&arguments))), later), Ok(()));
    // It begins anew then.
    for _ in 0..3 {
        assert_eq!(bot.begin(Some(("read", Some(&arguments))), began + seconds(30)), Ok(()));
    }
    assert!(bot.begin(Some(("read", Some(&arguments))), began + seconds(30)).is_err());
}

#[test]
fn a_call_that_is_to_be_made_again_is_spared_but_not_in_a_loop() {
    let (breaker, began) = (repeats(), Instant::now());
    let bot = bot(&breaker);
    let (arguments, other) = (json!({"a": 1}), json!({"a": 2}));
    let call = ("read", Some(&arguments));
    // As often as its caller is told to, it may ask for ever.
    for time in 0..5 {
        let now = began + seconds(15 * time);
        assert_eq!(bot.begin(Some(call), now), Ok(()), "{time}");
        bot.spare(call, now);
    }
    assert_eq!(bot.begin(Some(("read", Some(&other))), began + seconds(75)), Ok(()));
    // Whoever asks on and on is stopped.
    let now = began + seconds(76);
    for _ in 0..3 {
        assert_eq!(bot.begin(Some(call), now), Ok(()));
        bot.spare(call, now);
    }
    assert_eq!(bot.begin(Some(call), now), Ok(()), "one of them was spared");
    bot.spare(call, now);
    assert!(bot.begin(Some(call), now).is_err());
}

#[test]
fn a_call_that_is_made_now_and_then_is_no_loop() {
    let (breaker, began) = (repeats(), Instant::now());
    let bot = bot(&breaker);
    for number in 0..100 {
        assert_eq!(bot.begin(Some(("read", None)), began + seconds(number * 20)), Ok(()), "{number}");
    }
}

#[test]
fn a_loop_among_other_calls_is_found_and_what_is_kept_is_bounded() {
    let (breaker, began) = (repeats(), Instant::now());
    let bot = bot(&breaker);
    let mut refused = None;
    for number in 0..1_000 {
        // Two calls in turn, between calls that are all different.
        bot.begin(Some(("work", Some(&json!(number)))), began).expect("each is another");
        refused = bot.begin(Some(("read", Some(&json!(number % 2)))), began).err();
        if refused.is_some() {
            assert_eq!(number, 6, "the first of the two for the fourth time");
            break;
        }
    }
    assert_eq!(refused.map(|refused| refused.trip.name()), Some("repeats"));
    assert!(breaker.principals.iter().all(|habits| habits.repeats.len() <= CALLS_KEPT));
}

#[test]
fn a_share_of_failures_stops_whoever_has_it_and_a_few_do_not() {
    let (breaker, began) = (failures(), Instant::now());
    let bot = bot(&breaker);
    // Nine failures say nothing yet.
    (0..9).for_each(|_| bot.end(true, began));
    assert_eq!(bot.begin(Some(("read", None)), began), Ok(()));
    // Nor does a failure among many successes.
    let (breaker, many) = (failures(), 1_000);
    let bot = super::tests::bot(&breaker);
    (0..many).for_each(|_| bot.end(false, began));
    (0..many - 1).for_each(|_| bot.end(true, began));
    assert_eq!(bot.begin(Some(("read", None)), began), Ok(()));
    bot.end(true, began);
    let trip = Trip::Failures { calls: 2 * many, failed: many };
    let later = began + seconds(1);
    assert_eq!(bot.begin(Some(("read", None)), later), Err(Tripped { trip, retry_after: seconds(29) }));
    // What was under way does not lengthen it.
    (0..many).for_each(|_| bot.end(true, later));
    assert_eq!(bot.begin(Some(("read", None)), began + seconds(30)), Ok(()));
}

#[test]
fn failures_of_another_window_are_forgotten() {
    let (breaker, began) = (failures(), Instant::now());
    let bot = bot(&breaker);
    for number in 0..50 {
        bot.end(true, began + seconds(number * 7));
        assert_eq!(bot.begin(Some(("read", None)), began + seconds(number * 7)), Ok(()), "{number}");
    }
}

#[test]
fn it_goes_on_over_changes_of_the_tenant_but_for_its_own() {
    let (before, now) = (repeats(), Instant::now());
    (0..3).for_each(|_| bot(&before).begin(Some(("read", None)), now).expect("let through"));
    let same = Breaker::of(&before.spec, Some(&before));
    assert!(bot(&same).begin(Some(("read", None)), now).is_err());
    let other = model::Breaker { open_seconds: 1, ..before.spec.clone() };
    assert_eq!(bot(&Breaker::of(&other, Some(&before))).begin(Some(("read", None)), now), Ok(()));
}

#[test]
fn principals_are_bounded() {
    let (breaker, began) = (repeats(), Instant::now());
    for number in 0..2 * PRINCIPALS_MAX {
        breaker.watch(&number.to_string().into()).begin(Some(("read", None)), began).expect("let through");
        assert!(breaker.principals.len() <= PRINCIPALS_MAX);
    }
    // Those who did nothing lately go first.
    let active = bot(&breaker);
    let later = began + seconds(61);
    (0..3).for_each(|_| active.begin(Some(("read", None)), later).expect("let through"));
    for number in 0..PRINCIPALS_MAX - 1 {
        breaker
            .watch(&format!("new-{number}").into())
            .begin(Some(("read", None)), later)
            .expect("let through");
    }
    assert!(active.begin(Some(("read", None)), later).is_err());
}
