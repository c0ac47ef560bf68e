use proptest::prelude::*;

use super::*;

/// The words and weights of a prompt of one branch and one text.
fn words(text: &str) -> Vec<(String, f64)> {
    let prompt = Prompt::parse(text, 10).unwrap();
    let [Branch { texts, .. }] = &prompt.branches[..] else { panic!("{prompt:?}") };
    let words = texts[0].iter().map(|piece| match piece {
        Piece::Words { text, weight } => (text.clone(), *weight),
        Piece::Break => ("BREAK".to_owned(), 0.0),
    });
    words.collect()
}

fn error(text: &str) -> (usize, String) {
    let PromptError { column, problem } = Prompt::parse(text, 10).unwrap_err();
    (column, problem)
}

/// The text of each step, weights left out.
fn steps_of(text: &str, steps: u32) -> Vec<String> {
    let prompt = Prompt::parse(text, steps).unwrap();
    let branch = &prompt.branches[0];
    let text_of = |&place: &usize| {
        let words = branch.texts[place].iter().map(|piece| match piece {
            Piece::Words { text, .. } => text.as_str(),
            Piece::Break => "",
        });
        words.collect()
    };
    branch.of_step.iter().map(text_of).collect()
}

#[test]
fn an_edit_changes_the_text_at_its_step() {
    assert_eq!(steps_of("[cat:dog:2]", 5), ["cat", "cat", "cat", "dog", "dog"]);
    assert_eq!(steps_of("[cat:dog:0.5]", 4), ["cat", "cat", "cat", "dog"]);
    assert_eq!(steps_of("a [red::1] [:big:1]house", 3), ["a red house", "a red house", "a  bighouse"]);
    assert_eq!(steps_of("[cat|dog]", 4), ["cat", "cat", "dog", "cat"]);
    assert_eq!(steps_of("[cat:dog:0]", 2), ["dog", "dog"]);
}

#[test]
fn only_different_texts_are_listed() {
    let prompt = Prompt::parse("[a|b] in [snow:rain:4]", 100).unwrap();
    assert_eq!(prompt.branches[0].texts.len(), 4);
    assert_eq!(prompt.branches[0].of_step.len(), 100);
}

#[test]
fn faults_are_told_by_their_column() {
    for (text, column, problem) in [
        ("a (cat:1.2.3)", 8, "a weight must be a number from -1000 to 1000, got \"1.2.3\""),
        ("a (cat:.)", 8, "a weight must be a number from -1000 to 1000, got \".\""),
        ("ä (cat: 5000 )", 9, "a weight must be a number from -1000 to 1000, got \"5000\""),
        ("a cat AND a dog: 2000", 18, "the weight of a branch must be from -1000 to 1000, got 2000"),
        ("a [cat:dog:1.5]", 12, "a number with a point is a fraction of the steps, from 0.0 to 1.0, got 1.5"),
        ("a [cat:dog:-1]", 12, "a number without a point is a step, from 0, got -1"),
        ("((cat:100):100)", 3, "the brackets around it multiply to a weight of 10000; at most 1000 is allowed"),
        ("[x:(cat:1..2):1]", 9, "a weight must be a number from -1000 to 1000, got \"1..2\""),
    ] {
        assert_eq!(error(text), (column, problem.to_owned()), "{text}");
    }
    assert_eq!(error(&"a AND ".repeat(9)).0, 45);
    assert_eq!(error(&"(".repeat(65)), (65, "brackets are nested more than 64 deep; write \\( for the character".to_owned()));
}

#[test]
fn too_many_texts_are_refused() {
    let problem = Prompt::parse("[a|b|c|d|e|f|g][h|i|j|k|l|m|n|o][p|q|r|s|t]", 150).unwrap_err();
    assert_eq!((problem.column, problem.problem.contains("150 different texts")), (1, true), "{problem}");
    let long = |length: usize| Prompt::parse(&format!("[a|b|c|d] {}", "e ".repeat(length)), 20);
    assert_eq!(long(2_000).unwrap().branches[0].texts.len(), 4);
    let problem = long(4_100).unwrap_err();
    assert!(problem.problem.contains("4 texts of up to 8"), "{problem}");
}

#[test]
fn a_negative_prompt_has_one_branch() {
    let prompt = Prompt::parse_negative("bad AND ugly:2", 10).unwrap();
    assert_eq!((prompt.branches.len(), prompt.branches[0].weight), (1, 1.0));
}

#[test]
fn a_hostile_prompt_is_read_in_a_moment() {
    for text in ["(", "[", ")", "]", "[)", "(]", "[a:", "|", ":", "\\", "[a|", "()", "AND ", "[a|b]", "[a:b:.5]", ":1)", "(a:1.1)"]
    {
        let _ = Prompt::parse(&text.repeat(10_000 / text.len()), 150);
    }
}

/// Puts a backslash before every character that weighs.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|character| "\\()[]".contains(character).then_some('\\').into_iter().chain([character])).collect()
}

proptest! {
    #[test]
    fn parsing_never_panics_and_every_step_has_a_text(text in "[ a-c:|()\\[\\]\\\\.0-9ANDBREK-]{0,80}", steps in 1..150_u32) {
        match Prompt::parse(&text, steps) {
            Ok(prompt) => for branch in prompt.branches {
                prop_assert_eq!(branch.of_step.len(), steps as usize);
                prop_assert!(branch.of_step.iter().all(|&place| place < branch.texts.len()));
                prop_assert!(branch.texts.iter().all(|text| !text.is_empty()));
            },
            Err(error) => prop_assert!((1..=text.chars().count()).contains(&error.column), "{}", error),
        }
    }

    #[test]
    fn any_text_at_all_is_taken(text in "\\PC{0,60}") {
        let _ = Prompt::parse(&text, 20);
    }

    #[test]
    fn an_escaped_text_comes_back_as_it_was(text in "[ a-zé()\\[\\]\\\\]{0,40}[a-z]") {
        prop_assert_eq!(words(&escaped(&text)), [(text, 1.0)]);
    }

    #[test]
    fn written_weights_come_back(pieces in prop::collection::vec(("[a-z()\\[\\]]{1,8}", -40..40_i32), 1..8)) {
        let written: String = pieces.iter().map(|(text, weight)| format!("({}:{})", escaped(text), f64::from(*weight) / 8.0)).collect();
        let mut expected: Vec<(String, f64)> = Vec::new();
        for (text, weight) in &pieces {
            let weight = f64::from(*weight) / 8.0;
            match expected.last_mut() {
                Some((last, same)) if *same == weight => last.push_str(text),
                _ => expected.push((text.clone(), weight)),
            }
        }
        prop_assert_eq!(words(&written), expected);
    }
}
